"""What a run tells of each image: on stdout the paths of its files, or a line of JSON; on stderr its fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.runs.progress import Progress
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.summary import image_summary
from tipsseg.types import ImageRef
from tipsseg.util.files import json_bytes


class Reporter:
    """Prints the paths of each image's files."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def done(self, ref: ImageRef, entry: ManifestEntry, files: Mapping[str, Path]) -> None:
        """Tell of an image whose labels are in place, now or since an earlier run; `files` are its own, by format."""
        self._progress.results(files.values())
        self._progress.advance()

    def failed(self, error: ImageError) -> None:
        """Tell of an image that failed."""
        self._progress.error(error)
        self._progress.advance()


class JsonReporter(Reporter):
    """Prints a line of JSON for each image, in place of the paths of its files."""

    def done(self, ref: ImageRef, entry: ManifestEntry, files: Mapping[str, Path]) -> None:
        """Print the image's record."""
        self._progress.text(json_bytes(image_summary(ref, entry.summary, files)).decode() + "\n")
        self._progress.advance()
