"""Write JSON lists with one record per line: `diff` can compare them, and they need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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
