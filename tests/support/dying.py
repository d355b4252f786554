"""Ends work before a change of a file, as a kill would, in this process: nothing that comes after changes a file either."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Killed(BaseException):
    """Not an Exception, so that nothing takes it for an error that can be dealt with."""


@dataclass
class Death:
    """Lets so many changes of files through, then none."""

    left: int | None = None

    def meet(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or event not in _CHANGES:
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if self.left == 0:
            raise Killed
        self.left -= 1


_CHANGES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate"})
_death = Death()
sys.addaudithook(_death.meet)


@contextmanager
def death_after(changes: int) -> Iterator[None]:
    """After so many changes of files every further one fails, also those that would tidy up."""
    _death.left = changes
    try:
        yield
    finally:
        _death.left = None
