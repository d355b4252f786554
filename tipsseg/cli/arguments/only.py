"""Read the list of images that --only names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from tipsseg.cli.arguments import stdin
from tipsseg.errors import InputError, UsageError
from tipsseg.util.files import describe_error, open_regular
from tipsseg.util.printable import shell_line, shell_word

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
    entries = stdin.entries(null) if only == Path("-") else _file_entries(only, _hint(only, command, output))
    paths = [Path(entry) for entry in clean_entries(entries)]
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
            if _is_binary(first):
                raise UsageError(f"argument `only`: {path} is not a list of paths", hint)
            file.seek(0)
            return list(stdin.split_entries(_blocks(file), null=b"\0" in first))
    except OSError as error:
        raise InputError(f"argument `only`: {path}: {describe_error(error)}", hint) from error


def _is_binary(block: bytes) -> bool:
    """Return True if a file that begins with these bytes is not text.

    NUL may separate paths, and old names need not be UTF-8, so neither alone is a sign of a binary file.
    """
    if stdin.is_picture(block) or b"\0\0" in block:
        return True
    try:
        block.decode()
    except UnicodeDecodeError as error:
        cut = error.end == len(block) and error.reason == "unexpected end of data"
        return not cut and _CONTROL.search(block) is not None
    return False


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    while block := file.read(1 << 16):
        yield block
