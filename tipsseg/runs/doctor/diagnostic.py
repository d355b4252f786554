"""One line of what `tipsseg doctor` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tipsseg.errors import TipssegError


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What one check found.

    state   "ok"; "note": worth knowing, but nothing is wrong; "fail": tipsseg does not work as it should
    what    what was looked at
    detail  what was found
    hint    what to do; may be empty
    """

    state: Literal["ok", "note", "fail"]
    what: str
    detail: str
    hint: str = ""


def failure(what: str, error: TipssegError) -> Diagnostic:
    """The finding that an expected error makes."""
    return Diagnostic("fail", what, error.message, error.hint)


def reason_of(error: Exception) -> str:
    """The first line of somebody else's error."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def gigabytes(size: int) -> str:
    """A number of bytes for people: 1.5 GB."""
    return f"{size / 1e9:.1f} GB"
