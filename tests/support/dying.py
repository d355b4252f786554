"""Stops work before a change of a file, in this process, as a kill, a signal or an error of the system would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CHANGES = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate", "os.symlink"}
)


@dataclass
class _Meeting:
    """Something that is done once, when a file is put in its place, or at the change of a file that follows."""

    place: str = ""
    act: Callable[[], object] = int
    after: bool = False

    def meet(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.place:
            return
        if event == "os.rename" and os.path.abspath(os.fsdecode(arguments[1])) == self.place:  # type: ignore[arg-type]  # noqa: PTH100
            if self.after:
                self.place = "any"
                return
        elif self.place != "any" or event not in _CHANGES or (event == "open" and _only_reads(arguments)):
            return
        self.place = ""
        self.act()


def _only_reads(arguments: tuple[object, ...]) -> bool:
    return not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


_meeting = _Meeting()
sys.addaudithook(_meeting.meet)


def interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def at(place: Path, act: Callable[[], object] = interrupt, *, after: bool = False) -> Iterator[None]:
    """Do this once, by default Ctrl-C, when a file is about to be renamed to `place`; or before the change of a file after that."""
    _meeting.place, _meeting.act, _meeting.after = str(place.absolute()), act, after
    try:
        yield
        assert not _meeting.place, f"{place} was not met"
    finally:
        _meeting.place = ""
