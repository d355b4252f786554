"""manifest.jsonl: which images are labelled, from which input, into which files, with which result.

A line is added only after an image's files are in place under their final names, so what it says is true however the run ends. Of
several lines of one image the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tipsseg.append_log import AppendLog, lines_of
from tipsseg.errors import OutputError
from tipsseg.files import atomic_path, json_bytes
from tipsseg.fingerprint import Fingerprint
from tipsseg.records import name_order

MANIFEST_FILE = "manifest.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled image.

    image        its name, see ImageRef.name
    fingerprint  of the input, when it was labelled
    digest       of all that decided the labels
    summary      what the labels hold, see `summary.label_summary`: height, width, classes, background, ignored
    files        its own picture in each format that has one, relative to the output folder, posix
    formats      all formats that hold the image
    seconds      from opening the input to the last file
    sizes        of those files, in bytes
    """

    image: str
    fingerprint: Fingerprint
    digest: str
    summary: Mapping[str, object]
    files: Mapping[str, str]
    formats: tuple[str, ...]
    seconds: float
    sizes: Mapping[str, int]

    def record(self) -> dict[str, object]:
        """The entry as a line's JSON value."""
        size = {key: self.summary[key] for key in ("height", "width")}
        rest = {key: value for key, value in self.summary.items() if key not in size}
        return {
            "image": self.image,
            "size": self.fingerprint.size,
            "mtime_ns": self.fingerprint.mtime_ns,
            "sha256": self.fingerprint.sha256,
            "digest": self.digest,
            **size,
            "files": dict(self.files),
            "bytes": dict(self.sizes),
            "formats": list(self.formats),
            **rest,
            "seconds": self.seconds,
        }


def parse_entry(line: bytes) -> Entry | None:
    """The entry in a line of manifest.jsonl; None where it is none."""
    try:
        record = json.loads(line)
        return Entry(
            str(record["image"]),
            Fingerprint(int(record["size"]), int(record["mtime_ns"]), record["sha256"]),
            str(record["digest"]),
            {key: record[key] for key in ("height", "width", "classes", "background", "ignored")},
            {str(name): str(path) for name, path in record["files"].items()},
            tuple(map(str, record["formats"])),
            float(record["seconds"]),
            {str(name): int(size) for name, size in record["bytes"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


class Manifest:
    """The manifest of a folder of records, read and added to. In memory are a name and an offset an image."""

    def __init__(self, folder: Path) -> None:
        """Open the manifest in `folder`, which may be new; lines that are no entries are passed over. Raises OutputError."""
        self._path = folder / MANIFEST_FILE
        self._open()

    def _open(self) -> None:
        self._log = AppendLog(self._path)
        self._lines = 0
        self._offsets: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self._formats: dict[str, tuple[str, ...]] = {}
        self._known_formats: dict[tuple[str, ...], tuple[str, ...]] = {}
        for offset, entry in _entries(self._path):
            self._lines += 1
            if entry is not None:
                self._place(entry, offset)

    def _place(self, entry: Entry, offset: int) -> None:
        self._offsets[entry.image] = offset
        self._digests[entry.image] = sys.intern(entry.digest)
        # One tuple for all images of the same formats.
        self._formats[entry.image] = self._known_formats.setdefault(entry.formats, entry.formats)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, image: object) -> bool:
        return image in self._offsets

    def get(self, image: str) -> Entry | None:
        """The entry of an image. Raises OutputError where the file cannot be read."""
        offset = self._offsets.get(image)
        return None if offset is None else parse_entry(self._log.read(offset))

    def others(self, digest: str) -> list[str]:
        """The images whose labels were decided by something else."""
        return [image for image, own in self._digests.items() if own != digest]

    def entries(self) -> Iterator[Entry]:
        """The entries in the order of their names."""
        for image in self._order():
            entry = self.get(image)
            if entry is not None:
                yield entry

    def holding(self, name: str) -> list[str]:
        """The images that the files of a format hold, in the order of their names."""
        return [image for image in self._order() if name in self._formats[image]]

    def add(self, entry: Entry) -> None:
        """Add an image, or say anew what became of it. Raises OutputError."""
        self._place(entry, self._log.append(json_bytes(entry.record())))
        self._lines += 1

    def drop(self, image: str) -> None:
        """Forget an image, for good once the manifest is tidied."""
        self._offsets.pop(image, None)
        self._digests.pop(image, None)
        self._formats.pop(image, None)

    def clear(self) -> None:
        """Forget all images, for good. Raises OutputError."""
        if self._path.exists():
            self._log.clear()
        self._offsets.clear()
        self._digests.clear()
        self._formats.clear()
        self._lines = 0

    def tidy(self) -> None:
        """Rewrite the file in the order of names with one line an image, where it is not so already. Raises OutputError."""
        order = self._order()
        if self._lines == len(order) and order == list(self._offsets):
            self._log.trim()
            return
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            for image in order:
                file.write(self._log.read(self._offsets[image]) + b"\n")
        self._log.close()
        self._open()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._log.close()

    def _order(self) -> list[str]:
        return sorted(self._offsets, key=name_order)


def read_entries(folder: Path) -> dict[str, Entry]:
    """The entries of the manifest in `folder` by image, in the order of names, for reading only. Raises OutputError."""
    found = {entry.image: entry for _, entry in _entries(folder / MANIFEST_FILE) if entry is not None}
    return {image: found[image] for image in sorted(found, key=name_order)}


def _entries(path: Path) -> Iterator[tuple[int, Entry | None]]:
    try:
        for offset, line in lines_of(path):
            yield offset, parse_entry(line)
    except OSError as error:
        raise OutputError(path, f"it cannot be read: {error.strerror or error}", "Check its permissions.") from error
