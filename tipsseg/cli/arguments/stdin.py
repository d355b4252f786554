"""A list of paths on stdin, in place of paths as arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any

from tipsseg.cli.parameters import EMPTY_PATH
from tipsseg.errors import UsageError

#: How files of pictures begin, at an offset.
_PICTURES = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (0, b"II*\0"), (0, b"MM\0*"), (4, b"ftyp"))


def is_list(paths: Sequence[str]) -> bool:
    """Whether the arguments ask for a list on stdin. Raises UsageError for what cannot be meant."""
    if list(paths) == ["-"]:
        return True
    if "" in paths:
        raise UsageError("the path of an image is empty", EMPTY_PATH)
    if "-" in paths:
        raise UsageError("- stands for a list on stdin and cannot be mixed with other paths")
    urls = [path for path in paths if "://" in path]
    if urls:
        raise UsageError(f"{urls[0]} is an address, not a path", "Download the image first.")
    return False


def sources(paths: Sequence[str], null: bool) -> dict[str, Any]:
    """Return the `paths` of a Choice, or its `entries` if the arguments ask for a list on stdin. Raise UsageError."""
    return {"entries": entries(null)} if is_list(paths) else {"paths": tuple(map(Path, paths))}


def entries(null: bool) -> Iterator[bytes]:
    """The entries of the list on stdin, each as soon as it is there; the first is waited for.

    Raises UsageError, now or later, for an empty list and one that is separated by something else.
    """
    found = split_entries(_stdin_blocks(), null)
    first = next((entry for entry in found if entry.strip()), None)
    if first is None:
        raise UsageError("the list on stdin is empty")
    return chain([first], found)


def split_entries(blocks: Iterable[bytes], null: bool) -> Iterator[bytes]:
    """The entries of a list that comes in blocks, separated by NUL or by lines. Raises UsageError where it is the other one."""
    separator = b"\0" if null else b"\n"
    rest, separated = b"", False
    for block in blocks:
        if not null and b"\0" in block:
            raise UsageError("the list on stdin is separated by NUL", "Add -0.")
        *whole, rest = (rest + block).split(separator)
        separated = separated or bool(whole)
        yield from whole
    if null and not separated and b"\n" in rest.rstrip():
        raise UsageError("the list on stdin has lines and no NUL", "Leave out -0.")
    if rest:
        yield rest


def _stdin_blocks() -> Iterator[bytes]:
    if sys.stdin is None:
        return
    try:
        # Past Python's buffer: a block comes as soon as there is one, and a thread that waits for it holds no lock.
        stream: Any = FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):  # stdin is no file, as under a test runner
        stream = sys.stdin.buffer
    first = True
    while block := stream.read(1 << 16):
        if first:
            _refuse_picture(block)
        first = False
        yield block


def _refuse_picture(block: bytes) -> None:
    """Raise UsageError where what comes in place of a list of paths begins like a picture."""
    if is_picture(block):
        raise UsageError(
            "a picture came on stdin, where - stands for a list of paths",
            "Give the path of the picture, or save it first.",
        )


def is_picture(block: bytes) -> bool:
    """Whether a file that begins with these bytes is a picture."""
    riff = block[:4] == b"RIFF" and block[8:12] == b"WEBP"
    bmp = block[:2] == b"BM" and block[6:10] == bytes(4)
    return riff or bmp or any(block[start:].startswith(magic) for start, magic in _PICTURES)
