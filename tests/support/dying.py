"""Stops work before a change of a file, in this process, as a kill, a signal or an error of the system would."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tipsseg.store.lock import LOCK_FILE


class Killed(BaseException):
    """Not an Exception, so that nothing takes it for an error that can be dealt with."""


@dataclass
class Death:
    """Lets so many changes of files through, then raises `what`: at the next one alone, or at all that come.

    reads    whether reading counts too
    reached  whether it has raised
    """

    left: int | None = None
    what: Callable[[], BaseException] = Killed
    for_good: bool = True
    reads: bool = False
    reached: bool = False

    def meet(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or event not in (_CHANGES | _READS if self.reads else _CHANGES):
            return
        if event == "open" and not self.reads and _only_reads(arguments):
            return
        if self.left > 0:
            self.left -= 1
            return
        self.reached = True
        if not self.for_good:
            self.left = None
        raise self.what()


_CHANGES = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate", "os.symlink"}
)
_READS = frozenset({"os.listdir", "os.scandir"})
_death = Death()
sys.addaudithook(_death.meet)


@contextmanager
def death_after(changes: int) -> Iterator[None]:
    """After so many changes of files every further one fails, also those that would tidy up."""
    with stopped_after(changes, "SIGKILL"):
        yield


def deaths(folder: Path, work: Callable[[], object], stride: int = 1) -> Iterator[int]:
    """Kill `work` before each of its changes of files in turn, and yield the number of changes before, with `folder` as it is left.

    Each try begins with the folder as it was. At the end `work` has run through.
    """
    before = folder.with_name(f"{folder.name} before")
    shutil.copytree(folder, before, symlinks=True)
    for changes in itertools.count(0, stride):
        shutil.rmtree(folder)
        shutil.copytree(before, folder, symlinks=True)
        with suppress(Killed), death_after(changes):
            work()
            return
        (folder / LOCK_FILE).touch()  # its owner is dead
        yield changes


#: What may stop work: what is raised, whether every further change meets it too, and whether reading does.
STOPS: Mapping[str, tuple[Callable[[], BaseException], bool, bool]] = {
    "SIGKILL": (Killed, True, False),
    "Ctrl-C": (KeyboardInterrupt, False, True),
    "an error": (lambda: OSError(errno.EIO, os.strerror(errno.EIO)), False, True),
    "an error that stays": (lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)), True, False),
}


@contextmanager
def stopped_after(operations: int, stop: str) -> Iterator[None]:
    """Let so many operations on files through, then stop as STOPS says."""
    what, for_good, reads = STOPS[stop]
    _death.reached = False
    _death.left, _death.what, _death.for_good, _death.reads = operations, what, for_good, reads
    try:
        yield
    finally:
        _death.left = None


def reached() -> bool:
    """Whether the last `stopped_after` has stopped anything."""
    return _death.reached


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
