"""Describe what is wrong with the files of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.util.files import reason_of
from tipsseg.util.json_values import short
from tipsseg.util.printable import printable

#: What is raised for a per-image file that cannot be read, or is not as it was written.
UNREADABLE = (ImageError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in a file of a run."""

    path: Path
    what: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.what}")


def unreadable(error: OSError, place: Path) -> Problem:
    """Return the problem of a file that cannot be read; `place` stands for a file that the error does not name."""
    named = error.filename
    return Problem(Path(named) if isinstance(named, str | Path) else place, reason_of(error))


def what_is_wrong(error: Exception) -> str:
    """Describe one of UNREADABLE in a few words, without the file."""
    if isinstance(error, ImageError):
        return error.reason
    return reason_of(error) if isinstance(error, OSError) else f"not as tipsseg writes it: {error}"


def by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"


def class_text(names: Mapping[int, str], label_id: int) -> str:
    return f"class {label_id} ({names[label_id]})"


def class_faults(classes: Sequence[tuple[int, str]], names: Mapping[int, str]) -> Iterator[str]:
    """Yield how ids and names of classes differ from the classes of the run, whose `names` are by id."""
    if len(classes) != len(names):
        yield f"{len(classes)} classes, where run.json has {len(names)}"
        return
    for (label_id, name), (wanted_id, wanted) in zip(classes, names.items(), strict=True):
        if label_id != wanted_id:
            yield f"class {short(name)} has the id {label_id}, in run.json {wanted_id}"
        elif name != wanted:
            yield f"class {label_id} is {short(name)}, in run.json {short(wanted)}"
