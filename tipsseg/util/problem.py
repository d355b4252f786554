"""Describe faults in the files of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tipsseg.util.files import describe_error
from tipsseg.util.printable import printable


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in a file of a run."""

    path: Path
    what: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.what}")


def unreadable_problem(error: OSError, default: Path) -> Problem:
    """Return the problem for a file that cannot be read. Its path is `default` if the error does not name a file."""
    name = error.filename
    return Problem(Path(name) if isinstance(name, str | Path) else default, describe_error(error))


def size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
