"""Lists in JSON files with one record a line: two runs can be compared line by line, and no file has to fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO


def list_pieces(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Write a list of rows, in pieces."""
    yield b"["
    separator = b"\n"
    for row in rows:
        yield separator + row
        separator = b",\n"
    yield b"\n]" if separator == b",\n" else b"]"


def section_pieces(key: bytes, rows: Iterable[bytes]) -> Iterator[bytes]:
    """Write a list as the value of a key that is not the first in its object, in pieces."""
    yield b',\n"' + key + b'": '
    yield from list_pieces(rows)


def read_section(file: IO[bytes], key: bytes) -> Iterator[bytes]:
    """Yield the rows of the list of that key, from the beginning of the file. Raises ValueError."""
    first = b'"' + key + b'": ['
    for line in file:
        if line.startswith(first):
            if line.startswith(first + b"]"):
                return
            break
    yield from _rest(file, f"list {key.decode()!r}")


def read_list(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rows of a file that is one list. Raises ValueError."""
    first = file.readline(3)
    if first == b"[]\n":
        return
    if first != b"[\n":
        raise ValueError("it has not one record a line")
    yield from _rest(file, "list")


def match(pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    """Return the match of a pattern with a whole row. Raises ValueError if there is none."""
    found = pattern.fullmatch(line)
    if found is None:
        raise ValueError(f"a record that is none: {line[:40].decode('utf-8', 'replace')!r}")
    return found


def _rest(file: IO[bytes], what: str) -> Iterator[bytes]:
    more = True
    for line in file:
        if more == line.startswith(b"]"):
            raise ValueError(f"a comma too many or too few in the {what}")
        if not more:
            return
        record = line.rstrip(b"\n")
        more = record.endswith(b",")
        yield record.removesuffix(b",")
    raise ValueError(f"no whole {what} in the file")
