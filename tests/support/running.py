"""What the fixtures that run the command give back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Ran:
    """Exit code, stdout and stderr."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """`tipsseg` with these arguments."""

    def __call__(self, *arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran: ...
