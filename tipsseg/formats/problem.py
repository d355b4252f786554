"""What `tipsseg check` finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tipsseg.util.files import reason_of
from tipsseg.util.printable import printable


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as a run leaves it: in which file, and what."""

    path: Path
    what: str

    def __str__(self) -> str:
        """One line, "path: what", that can be printed."""
        return printable(f"{self.path}: {self.what}")


def unreadable(error: OSError, place: Path) -> Problem:
    """The problem of a file that cannot be read; `place` stands for a file that the error does not name."""
    named = error.filename
    return Problem(Path(named) if isinstance(named, str | Path) else place, reason_of(error))


def by(size: tuple[int, int]) -> str:
    """A size for a line of text: "480 x 640 (height x width)"."""
    return f"{size[0]} x {size[1]} (height x width)"


def class_text(names: Mapping[int, str], label_id: int) -> str:
    """A class for a line of text: "class 2 (tree)"."""
    return f"class {label_id} ({names[label_id]})"
