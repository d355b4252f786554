"""Describe faults in the files of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsseg.util.files import describe_error
from tipsseg.util.json_values import short
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


def class_faults(classes: Sequence[tuple[int, str]], names: Mapping[int, str]) -> Iterator[str]:
    """Yield the differences between (id, name) pairs and the class names of the run by id."""
    if len(classes) != len(names):
        yield f"{len(classes)} classes, but the run has {len(names)}"
        return
    for (label_id, name), (run_id, run_name) in zip(classes, names.items(), strict=True):
        if label_id != run_id:
            yield f"class {short(name)} has id {label_id}, but {run_id} in the run"
        elif name != run_name:
            yield f"class {label_id} is {short(name)}, but {short(run_name)} in the run"
