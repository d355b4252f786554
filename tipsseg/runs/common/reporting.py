"""Count and print the results of a run, one by one.

Paths of files, or lines of JSON, go to stdout; errors of images go to stderr.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats.overlay import Overlay
from tipsseg.run.results import Labelled, Unchanged
from tipsseg.run.spec import Counts
from tipsseg.run.summary import image_summary
from tipsseg.runs.common.progress import Progress
from tipsseg.types import Failed
from tipsseg.util.json import json_bytes
from tipsseg.util.text import pluralize


class Reporter:
    """Count and print results.

    Attributes:
        progress: Prints results and notes.
        counts: The results so far; `labelled` counts the images that this run labelled.
        began: The time.monotonic() at which labelling began.
        shown: The first overlay, unless lines of JSON are printed.
    """

    def __init__(self, progress: Progress, *, jsonl: bool = False) -> None:
        """Set up the reporter. With `jsonl`, print a line of JSON instead of paths."""
        self.progress, self.counts = progress, Counts()
        self.began = time.monotonic()
        self.shown: Path | None = None
        self._jsonl = jsonl
        self._failed = set[Path]()

    def report(self, result: Labelled | Unchanged | Failed) -> None:
        """Count and print a recorded result. Raise OutputError if stdout is closed."""
        counts = self.counts
        if isinstance(result, Failed):
            self._fail(result.error)
        elif isinstance(result, Unchanged):
            self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(result.edited))
            self._print(result)
        else:
            self.counts = replace(counts, labelled=counts.labelled + 1)
            self._print(result)
        self.progress.advance()

    def report_derived(self, found: list[Path] | ImageError) -> None:
        """Print derived files of an image that are new, or count and print an error, unless it was before."""
        if isinstance(found, ImageError):
            if found.path not in self._failed:
                self._fail(found)
        elif not self._jsonl:
            self.progress.results(found)

    def _fail(self, error: ImageError) -> None:
        self.counts = replace(self.counts, failed=self.counts.failed + 1)
        self._failed.add(error.path)
        self.progress.error(error)

    def interruption(self, command: str) -> str:
        """Return the message for an interrupted run; `command` is the one that resumes it."""
        counts = self.counts
        done = max(
            counts.labelled + counts.unchanged, self.progress.done - counts.failed
        )  # with Ray, more than was reported
        return f"{pluralize(done, 'image')} done; run {command} to resume"

    def _print(self, result: Labelled | Unchanged) -> None:
        if self._jsonl:
            record = image_summary(result.ref, result.entry.summary, result.files, result.reason)
            self.progress.text(json_bytes(record).decode() + "\n")
        else:
            self.shown = self.shown or result.files.get(Overlay.name)
            self.progress.results(path for path in result.files.values() if path.exists())
