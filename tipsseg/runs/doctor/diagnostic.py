"""One line of what `tipsseg doctor` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tipsseg.errors import TipssegError


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """The result of one check.

    Attributes:
        state: "ok"; "note": worth knowing, but nothing is wrong; "fail": tipsseg does not work as it should.
        what: the name of the thing that was checked, for example "torch".
        detail: what was found.
        hint: what to do; may be empty.
    """

    state: Literal["ok", "note", "fail"]
    what: str
    detail: str
    hint: str = ""


def failure(what: str, error: TipssegError) -> Diagnostic:
    """The diagnostic for an expected error."""
    return Diagnostic("fail", what, error.message, error.hint)


def first_line(error: Exception) -> str:
    """The first line of an error of another library; the type of the error where it has no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def gigabytes(size: int) -> str:
    """A size in bytes for people: 1.5 GB."""
    return f"{size / 1e9:.1f} GB"
