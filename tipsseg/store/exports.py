"""Write and read the exports of a state folder: manifest.jsonl and errors.jsonl, line by line during a run, sorted at its end.

They are read if a folder has no usable database, with the files of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from itertools import chain
from pathlib import Path

from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, read_entry
from tipsseg.util.files import (
    atomic_path,
    json_bytes,
    open_appending,
    open_regular,
    output_error,
    remove_file,
)
from tipsseg.util.fingerprint import file_record, stamp


class Exports:
    """Write the exports of a state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._growing: dict[str, FileIO] = {}

    def append(self, name: str, line: bytes) -> None:
        """Append a line to an export. Raises OutputError if writing fails."""
        path = self._folder / name
        try:
            if name not in self._growing:
                self._growing[name] = FileIO(open_appending(path), "a+")
            self._growing[name].write(line)
        except OSError as error:
            raise output_error(path, error) from error

    def write(self, name: str, lines: Iterable[bytes]) -> bytes | None:
        """Replace an export, or remove it if `lines` is empty; return the file's record."""
        self.close()
        path, lines = self._folder / name, iter(lines)
        first = next(lines, None)
        if first is None:
            remove_file(path)
            return None
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                file.writelines(chain([first], lines))
            return json_bytes(file_record(stamp(temporary)))

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for file in self._growing.values():
            file.close()
        self._growing.clear()


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file, without line ends; nothing if the file is missing. Raises OSError if reading fails."""
    with suppress(FileNotFoundError), open_regular(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def exported_entries(folder: Path) -> Iterator[tuple[ManifestEntry | None, str]]:
    """Yield the entry in each line of manifest.jsonl and "", or None and the fault of the line. Raises OSError if reading fails."""
    for number, line in enumerate(lines_of(folder / MANIFEST_FILE), start=1):
        try:
            yield read_entry(line), ""
        except ValueError as error:
            yield None, f"line {number} is not a valid entry: {error}"


def exported_rows(folder: Path, holding: Callable[[str], Sequence[str]]) -> Iterator[tuple[str, str, Rows]]:
    """Yield format, image and rows, from the files of rows.

    Args:
        folder: The state folder.
        holding: A function that returns the images in a format, sorted by name.
    """
    for name, form in FORMATS.items():
        # The rows in an unreadable file are lost, so its images are labelled again.
        with suppress(OSError, ValueError):
            for image, rows in form.read_rows(folder / form.files[0], holding(name)) if form.has_rows else ():
                yield name, image, rows
