"""Read and write JSON lists with one record per line: `diff` can compare them, and they need not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO


def encode_list(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Encode rows as a JSON list, in pieces."""
    yield b"["
    separator = b"\n"
    for row in rows:
        yield separator + row
        separator = b",\n"
    yield b"\n]" if separator == b",\n" else b"]"


def encode_section(key: bytes, rows: Iterable[bytes]) -> Iterator[bytes]:
    """Encode rows as a JSON list under a key, in pieces. The key must not be the first one in its object."""
    yield b',\n"' + key + b'": '
    yield from encode_list(rows)


def prepend(members: bytes, row: bytes) -> bytes:
    """Insert members, such as `"id": 1`, at the start of a JSON object."""
    return b"{" + members + b", " + row.removeprefix(b"{")


def read_section(file: IO[bytes], key: bytes) -> Iterator[bytes]:
    """Yield the rows of the list under a key. `file` must be at its start. Raises ValueError if the list is damaged."""
    first = b'"' + key + b'": ['
    for line in file:
        if line.startswith(first):
            if line.startswith(first + b"]"):
                return
            break
    yield from _read_items(file, f"list {key.decode()!r}")


def read_list(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rows of a file that is a single list. Raises ValueError if the list is damaged."""
    first = file.readline(3)
    if first == b"[]\n":
        return
    if first != b"[\n":
        raise ValueError("expected one record per line")
    yield from _read_items(file, "list")


def match_row(pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    """Match a whole row against a pattern. Raises ValueError if it does not match."""
    match = pattern.fullmatch(line)
    if match is None:
        raise ValueError(f"unexpected record: {line[:40].decode('utf-8', 'replace')!r}")
    return match


def _read_items(file: IO[bytes], what: str) -> Iterator[bytes]:
    more = True
    for line in file:
        if more == line.startswith(b"]"):
            raise ValueError(f"missing or surplus comma in the {what}")
        if not more:
            return
        record = line.rstrip(b"\n")
        more = record.endswith(b",")
        yield record.removesuffix(b",")
    raise ValueError(f"the {what} is incomplete")
