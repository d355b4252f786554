"""Files that grow by whole lines: a process that is killed loses the last line at most."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tipsseg.util.files import open_appending, open_regular, output_error


class AppendLog:
    """A file of lines that are appended, and read back by their offsets in bytes.

    The operating system has an appended line when `append` returns. A line that could not be written whole, as on a full disk, is
    removed again. Only one process may use the file. Any of its threads may call any method; a lock keeps the calls apart.
    """

    def __init__(self, path: Path) -> None:
        """Of `path`. The first line creates the file and its parent folders, and cuts off what follows the last line end in it."""
        self.path = path
        self._file: FileIO | None = None
        self._reader: BinaryIO | None = None
        self._stale = False  # whether the reader may have bytes in its buffer that are cut off by now
        self._end = 0
        # The reader has one position, and whoever reads moves it.
        self._alone = threading.RLock()

    def append(self, line: bytes) -> int:
        """Add a line, given without a line end, and return its offset in bytes. Raises OutputError."""
        with self._alone:
            return self._append(line)

    def _append(self, line: bytes) -> int:
        file, data, start = self._opened(), memoryview(line + b"\n"), self._end
        try:
            written = 0
            while written < len(data):  # a disk that gets full takes a part first
                written += file.write(data[written:]) or 0
        except BaseException as error:
            with suppress(OSError):
                file.truncate(start)
            self._stale = True
            if isinstance(error, OSError):
                raise output_error(self.path, error) from error
            raise
        self._end = start + len(data)
        return start

    def read(self, offset: int) -> bytes:
        """The line at an offset, without its end. Raises OutputError."""
        with self._alone:
            return self._read(offset)

    def _read(self, offset: int) -> bytes:
        try:
            if self._stale and self._reader is not None:
                self._reader.close()
                self._reader = None
            if self._reader is None:
                self._stale = False
                self._reader = open_regular(self.path)
            self._reader.seek(offset)
            return self._reader.readline().removesuffix(b"\n")
        except OSError as error:
            raise output_error(self.path, error) from error

    def trim(self) -> None:
        """Cut off what follows the last line end; does nothing where the file is absent. Raises OutputError."""
        with self._alone:
            if self.path.exists():
                self._opened()

    def is_removed(self) -> bool:
        """Whether the file that was appended to was removed or replaced."""
        with self._alone:
            if self._file is None:
                return False
            try:
                return not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
            except OSError:
                return True

    def close(self) -> None:
        """Close the file; safe to call twice. Raises OutputError, for example where the disk cannot keep what was appended."""
        with self._alone:
            try:
                for file in (self._file, self._reader):
                    if file is not None:
                        file.close()
            except OSError as error:
                raise output_error(self.path, error) from error

    def _opened(self) -> FileIO:
        if self._file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = FileIO(open_appending(self.path), "a+")
                self._end = whole_lines(self.path)
                if self._file.tell() != self._end:
                    self._file.truncate(self._end)
                    self._stale = True
            except OSError as error:
                if self._file is not None:
                    self._file.close()
                    self._file = None
                raise output_error(self.path, error) from error
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the whole lines of a file, without their ends, with their offsets; nothing where the file is absent. Raises OSError."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file:
        offset = 0
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line[:-1]
            offset += len(line)


def whole_lines(path: Path) -> int:
    """The size in bytes of the part of a file that ends with its last line end. Raises OSError."""
    block = 1 << 16
    with open_regular(path) as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - block)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                return start + last + 1
            end = start
    return 0
