"""Read lists of paths: from stdin, and the images that --only names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader, FileIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsseg.address import as_address
from tipsseg.cli.parameters import EMPTY_PATH
from tipsseg.errors import InputError, UsageError, Words
from tipsseg.util.files import describe_error, open_regular
from tipsseg.util.text import shell_line, shell_word

if TYPE_CHECKING:
    from tipsseg.images.finding import Listed

#: Bytes after which an entry of a list must end.
_LONGEST = 1 << 16

#: Signatures of image files, each with its offset.
_PICTURES = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (0, b"II*\0"), (0, b"MM\0*"), (4, b"ftyp"))


def images(paths: Sequence[str], null: bool) -> tuple[Path, ...] | Listed:
    """Return the images that the arguments name: files and folders, or the list on stdin.

    Raise UsageError for an empty path, or - among other paths.
    """
    from tipsseg.images.finding import Listed

    if list(paths) == ["-"]:
        return Listed(entries(null))
    if "" in paths:
        raise UsageError("an image path is empty", EMPTY_PATH)
    if "-" in paths:
        raise UsageError("- reads a list from stdin and cannot be combined with other paths")
    return tuple(map(as_address, paths))


def entries(null: bool) -> Iterator[bytes]:
    """Wait for the first entry of the list on stdin, and return an iterator over all entries.

    Raise UsageError if the list is empty or has the wrong separator. The iterator raises UsageError too.
    """
    remaining = split_entries(_stdin_blocks(), null)
    first = next((entry for entry in remaining if entry.strip()), None)
    if first is None:
        raise UsageError("the list on stdin is empty")
    return chain([first], remaining)


def split_entries(blocks: Iterable[bytes], null: bool) -> Iterator[bytes]:
    """Split the blocks of a list at NUL or at newlines. Raise UsageError for the other separator, or an endless entry."""
    separator = b"\0" if null else b"\n"
    rest, separated = b"", False
    for block in blocks:
        if not null and b"\0" in block:
            raise UsageError("the list on stdin is separated by NUL", "Add -0.")
        *whole, rest = (rest + block).split(separator)
        if len(rest) > _LONGEST:
            raise UsageError(f"the list has an entry of more than {_LONGEST:,} bytes, which is not a path")
        separated = separated or bool(whole)
        yield from whole
    if null and not separated and b"\n" in rest.rstrip():
        raise UsageError("the list on stdin is separated by newlines, not NUL", "Remove -0.")
    if rest:
        yield rest


def _stdin_blocks() -> Iterator[bytes]:
    if sys.stdin is None:
        return
    try:
        # Unbuffered: a block arrives as soon as it is written, and the thread that waits for it holds no lock.
        stream: Any = FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):  # stdin is not a file, for example under a test runner
        stream = sys.stdin.buffer
    first = True
    while block := stream.read(1 << 16):
        if first and is_picture(block):
            raise UsageError(
                "got an image on stdin, but - expects a list of paths", "Pass the image file instead of -."
            )
        first = False
        yield block


def is_picture(block: bytes) -> bool:
    """Return True if a file that begins with these bytes is an image."""
    riff = block[:4] == b"RIFF" and block[8:12] == b"WEBP"
    bmp = block[:2] == b"BM" and block[6:10] == bytes(4)
    return riff or bmp or any(block[start:].startswith(magic) for start, magic in _PICTURES)


#: Control characters that do not occur in a list of paths: all except separators and white space.
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read_only(only: Path | None, null: bool, command: str, output: Path) -> list[Path] | None:
    """Return the paths in the list of --only, or None without --only.

    Args:
        only: A file, or - for stdin.
        null: True if NUL separates a list on stdin. A file's separator is detected.
        command: The name of the command, for hints.
        output: The command's output folder, for hints.

    Raises:
        UsageError: If the list is empty, the file is not a list, or the list on stdin has the wrong separator.
        InputError: If the file cannot be read.
    """
    from tipsseg.images.finding import clean_entries

    if only is None:
        return None
    listed = entries(null) if only == Path("-") else _file_entries(only, _hint(only, command, output))
    paths = [Path(entry) for entry in clean_entries(listed)]
    if not paths:
        raise UsageError(f"the list in {only} is empty")
    return paths


def _hint(only: Path, command: str, output: Path) -> str:
    line = shell_line(["tipsseg", command, str(output), "--only", "-"])
    return f"Use a file with one path per line, or - for stdin: echo {shell_word(str(only))} | {line}"


def _file_entries(path: Path, hint: str) -> list[bytes]:
    try:
        with open_regular(path) as file:
            first = next(_blocks(file), b"")
            if is_picture(first) or _CONTROL.search(first):
                raise UsageError(Words("{only}: {path} is not a list of paths", path=path), hint)
            file.seek(0)
            return list(split_entries(_blocks(file), null=b"\0" in first))
    except OSError as error:
        raise InputError(Words("{only}: {path}: {error}", path=path, error=describe_error(error)), hint) from error


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    while block := file.read(1 << 16):
        yield block
