"""Write and read the exports of a state folder: manifest.jsonl and errors.jsonl, line by line during a run, sorted at its end.

They are read where a folder has no usable database, with the files of rows and the hidden files of versions without a database.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from itertools import chain
from pathlib import Path

from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, read_entry
from tipsseg.util.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    json_bytes,
    open_appending,
    open_regular,
    output_error,
    remove_file,
)
from tipsseg.util.fingerprint import file_record, stamp
from tipsseg.util.json_values import parse
from tipsseg.util.record_paths import is_inside

#: Prefix of the logs in which earlier versions recorded pending files.
FORMER_NOTES = f"{TEMPORARY_PREFIX}writes-"


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


def former_notes(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the pending files that an earlier version recorded: path, digest, and image or "". Raises OSError if reading fails."""
    for log in _former_logs(folder):
        for line in lines_of(log):
            with suppress(ValueError, TypeError):  # a torn line, for example after a power loss
                image, place, digest = parse(line)
                if isinstance(image, str) and isinstance(digest, str) and is_inside(place):
                    yield place, digest, image


def former_journals(folder: Path) -> list[str]:
    """Return the formats for which an earlier version left a journal of rows; their files must be written again."""
    return [name for name in FORMATS if _journal(folder, name).exists()]


def exported_rows(folder: Path, holding: Callable[[str], Sequence[str]]) -> Iterator[tuple[str, str, Rows]]:
    """Yield format, image and rows, from the files of rows or from the journals of an earlier version.

    Args:
        folder: The state folder.
        holding: A function that returns the images in a format, sorted by name.
    """
    for name, form in FORMATS.items():
        if not form.has_rows:
            continue
        journal = _journal(folder, name)
        # The rows in an unreadable file are lost, so its images are labelled again.
        with suppress(OSError, ValueError):
            if journal.exists():
                yield from ((name, image, rows) for image, rows in _journal_rows(journal))
            else:
                for image, rows in form.read_rows(folder / form.files[0], holding(name)):
                    yield name, image, rows


def former_files(folder: Path) -> list[Path]:
    """Return the hidden files of an earlier version. Raises OSError if the folder cannot be listed."""
    return [*_former_logs(folder), *(_journal(folder, name) for name in former_journals(folder))]


def _former_logs(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.startswith(FORMER_NOTES))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def _journal(folder: Path, name: str) -> Path:
    return folder / f"{TEMPORARY_PREFIX}{name}"


def _journal_rows(journal: Path) -> Iterator[tuple[str, Rows]]:
    for line in lines_of(journal):
        name, tab, rows = line.partition(b"\t")
        with suppress(ValueError):  # a torn line
            image = parse(name) if tab else None
            if isinstance(image, str):
                yield image, tuple(rows.split(b"\t")) if rows else ()
