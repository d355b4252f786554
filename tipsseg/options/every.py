"""Define the interval at which frames of a video are labelled."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tipsseg.errors import UsageError

EVERY_HINT = "Set argument `every` to 1s for a frame per second, 0.5s for two, or 10 for every tenth frame."


@dataclass(frozen=True, slots=True)
class Every:
    """An interval: a number of frames, or a time in seconds. Raise UsageError if it is not positive."""

    frames: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        value = self.seconds if self.frames is None else self.frames
        if value is None or not 0 < value < math.inf:
            raise UsageError(f"argument `every`={self} is not a positive interval", EVERY_HINT)

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.frames is None else str(self.frames)


def parse_every(text: object) -> Every:
    """Parse an interval such as "1s", "0.5s" or "10" (frames). Raise UsageError if it is neither."""
    if isinstance(text, Every):
        return text
    if not (match := re.fullmatch(r"([0-9]{1,9})|([0-9]{0,9}\.?[0-9]{1,9})s", str(text).strip())):
        raise UsageError(f"argument `every`={text} is not an interval of a video", EVERY_HINT)
    return Every(frames=int(match[1])) if match[1] else Every(seconds=float(match[2]))
