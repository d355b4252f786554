"""Keeps what a run says."""

from __future__ import annotations

from tipsseg.errors import TipssegError
from tipsseg.say import Progress


class Said(Progress):
    """Keeps the notes and the errors."""

    def __init__(self) -> None:
        super().__init__(quiet=False, results=False)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def error(self, error: TipssegError) -> None:
        self.lines.append(error.message + " | " + error.hint)
