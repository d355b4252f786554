"""Take the results of a run one after the other: record, count and report each.

On stdout are the paths of its files, or a line of JSON; on stderr is its fault.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from tipsseg.runs.common.progress import Progress
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.spec import Counts
from tipsseg.store.summary import image_summary
from tipsseg.types import ImageRef
from tipsseg.util.files import json_bytes
from tipsseg.util.printable import counted


class Done(Protocol):
    """The result of an image whose labels are in place: Labelled, Unchanged or Converted."""

    @property
    def ref(self) -> ImageRef:
        """The image."""

    @property
    def entry(self) -> ManifestEntry:
        """Its line in the manifest."""


_Result = TypeVar("_Result", bound=Done | Failed)


class Reporter(Generic[_Result]):
    """Take the results of a run one after the other.

    Attributes:
        counts: What became of the images so far; `labelled` are those that the run itself has done.
    """

    def __init__(
        self, progress: Progress, record: Callable[[_Result], Mapping[str, Path]], *, jsonl: bool = False
    ) -> None:
        """Take nothing yet.

        Args:
            progress: Prints it all.
            record: Keeps a result for good, before anything is said of it; returns the per-image files to report, by format.
            jsonl: Whether a line of JSON takes the place of the paths.
        """
        self.counts = Counts()
        self._progress = progress
        self._record = record
        self._jsonl = jsonl

    def each(self, results: Generator[_Result, None, None]) -> Iterator[_Result]:
        """Take all results, and yield each once it is recorded and reported."""
        with closing(results):
            for result in results:
                self.take(result)
                yield result

    def take(self, result: _Result) -> None:
        """Take one result. Raises OutputError if it cannot be recorded or reported."""
        files, counts = self._record(result), self.counts
        if isinstance(result, Failed):
            self.counts = replace(counts, failed=counts.failed + 1)
            self._progress.error(result.error)
        elif isinstance(result, Unchanged):
            self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(result.edited))
            self._tell(result, files)
        else:
            self.counts = replace(counts, labelled=counts.labelled + 1)
            self._tell(result, files)
        self._progress.advance()

    def broken_off(self, again: str) -> str:
        """Return the line for a run that the user breaks off; `again` is the command that goes on."""
        return f"{counted(self.counts.labelled + self.counts.unchanged, 'image')} done; {again} goes on from there"

    def _tell(self, result: Done, files: Mapping[str, Path]) -> None:
        if self._jsonl:
            record = image_summary(result.ref, result.entry.summary, files)
            self._progress.text(json_bytes(record).decode() + "\n")
        else:
            self._progress.results(files.values())
