"""The list of images that --only names."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.cli.arguments import stdin
from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.util.files import open_regular, reason_of

if TYPE_CHECKING:
    from tipsseg.runs.progress import Progress


class Refusals:
    """Tells of paths in the list that are no labelled images."""

    def __init__(self, output: Path, progress: Progress) -> None:
        """`output`: the output folder."""
        self._output = output
        self._progress = progress
        #: Whether there were some.
        self.any = False

    def take(self, path: Path) -> None:
        """Tell of one."""
        self.any = True
        self._progress.error(ImageError(path, f"not labelled in {self._output}", "Leave it out of argument `only`."))


def read_only(only: Path | None, null: bool) -> list[Path] | None:
    """The paths in the list that --only names; None where it is not given.

    Args:
        only: A file, or - for a list on stdin.
        null: Whether a list on stdin is separated by NUL. A file shows it itself.

    Raises:
        UsageError: For an empty list, and one on stdin that is separated by something else.
        InputError: For a file that cannot be read.
    """
    from tipsseg.runs.inputs import clean_entries

    if only is None:
        return None
    entries = stdin.entries(null) if only == Path("-") else _file_entries(only)
    paths = [Path(entry) for entry in clean_entries(entries)]
    if not paths:
        raise UsageError(f"the list in {only} is empty")
    return paths


def _file_entries(path: Path) -> list[bytes]:
    try:
        with open_regular(path) as file:
            first = next(_blocks(file), b"")
            file.seek(0)
            return list(stdin.split_entries(_blocks(file), null=b"\0" in first))
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}", "Give a file with a path a line as argument `only`.") from error


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    while block := file.read(1 << 16):
        yield block
