"""Write manifest.jsonl and errors.jsonl: line by line during a run, complete and in order at its end."""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.util.files import atomic_path, json_bytes, open_appending, output_error, remove_file
from tipsseg.util.fingerprint import file_record, stamp


class Exports:
    """The exports in a state folder while a process adds to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._growing: dict[str, FileIO] = {}

    def append(self, name: str, line: bytes) -> None:
        """Add a line to an export. Raises OutputError."""
        path = self._folder / name
        try:
            if name not in self._growing:
                self._growing[name] = FileIO(open_appending(path), "a+")
            self._growing[name].write(line)
        except OSError as error:
            raise output_error(path, error) from error

    def write_manifest(self, lines: Iterable[bytes] | None) -> bytes | None:
        """Replace manifest.jsonl, or remove it if `lines` is None; return the record of the file. Raises OutputError."""
        self.close()
        path = self._folder / MANIFEST_FILE
        if lines is None:
            remove_file(path)
            return None
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                for line in lines:
                    file.write(line + b"\n")
            return json_bytes(file_record(stamp(temporary)))

    def write_errors(self, lines: Iterable[bytes]) -> None:
        """Replace errors.jsonl, or remove it if `lines` is empty. Raises OutputError."""
        self.close()
        path, data = self._folder / ERRORS_FILE, b"".join(lines)
        if not data:
            remove_file(path)
            return
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for file in self._growing.values():
            file.close()
        self._growing.clear()
