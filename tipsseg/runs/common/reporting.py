"""Count and print the results of a run, one by one.

Paths of files, or lines of JSON, go to stdout; errors of images go to stderr.
"""

from __future__ import annotations

from dataclasses import replace

from tipsseg.run.results import Failed, Labelled, Unchanged
from tipsseg.run.spec import Counts
from tipsseg.run.summary import image_summary
from tipsseg.runs.common.progress import Progress
from tipsseg.util.files import json_bytes
from tipsseg.util.printable import pluralize


class Reporter:
    """Count and print results.

    Attributes:
        counts: The results so far; `labelled` counts the images that this run labelled.
    """

    def __init__(self, progress: Progress, *, jsonl: bool = False) -> None:
        """Set up the reporter. With `jsonl`, print a line of JSON instead of paths."""
        self.counts = Counts()
        self._progress = progress
        self._jsonl = jsonl

    def report(self, result: Labelled | Unchanged | Failed) -> None:
        """Count and print a recorded result. Raise OutputError if stdout is closed."""
        counts = self.counts
        if isinstance(result, Failed):
            self.counts = replace(counts, failed=counts.failed + 1)
            self._progress.error(result.error)
        elif isinstance(result, Unchanged):
            self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(result.edited))
            self._print(result)
        else:
            self.counts = replace(counts, labelled=counts.labelled + 1)
            self._print(result)
        self._progress.advance()

    def interruption(self, command: str) -> str:
        """Return the message for an interrupted run; `command` is the one that resumes it."""
        counts = self.counts
        done = max(
            counts.labelled + counts.unchanged, self._progress.done - counts.failed
        )  # with Ray, more than was reported
        return f"{pluralize(done, 'image')} done; run {command} to resume"

    def _print(self, result: Labelled | Unchanged) -> None:
        if self._jsonl:
            record = image_summary(result.ref, result.entry.summary, result.files, result.reason)
            self._progress.text(json_bytes(record).decode() + "\n")
        else:
            self._progress.results(path for path in result.files.values() if path.exists())
