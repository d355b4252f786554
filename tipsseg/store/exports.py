"""Write manifest.jsonl and errors.jsonl: line by line during a run, complete and sorted at its end."""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from itertools import chain
from pathlib import Path

from tipsseg.util.files import atomic_path, json_bytes, open_appending, output_error, remove_file
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
