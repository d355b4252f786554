"""Values of options: the interval of the frames of a video, and the shard of a run that one process or machine labels."""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, field

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


_HINT = "Write the part and the number of parts: 1/8 to 8/8 for 8 processes."

#: The variables with which SkyPilot, torchrun and Open MPI number their processes from 0, and those with the number of processes.
_RANKS = {
    "SKYPILOT_JOB_RANK": "SKYPILOT_NUM_JOBS",
    "RANK": "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
}
_SLURM = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (1..`count`) of `count` parts; `source` is the variable that it was read from. Raises UsageError."""

    index: int
    count: int
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"argument `shard`={self}: a run has at least one part", _HINT)
        if not 1 <= self.index <= self.count:
            raise UsageError(f"argument `shard`={self}: the part must be in 1 to {self.count}", _HINT)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder(self) -> str:
        return f"{self.index}-of-{self.count}"

    def takes(self, name: str) -> bool:
        """Return True if the image `name` (ImageRef.name) is in this shard. Every machine assigns it to the same shard."""
        return index_of(name, self.count) == self.index


def index_of(name: str, count: int) -> int:
    """Return the index (1..`count`) of the shard that has the image `name`."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big") % count + 1


def parse_shard(text: str | Shard) -> Shard:
    """Parse a shard such as "3/8", or read it from the environment for "auto". Raise UsageError if it is invalid."""
    if isinstance(text, Shard):
        return text
    if text == "auto":
        return _from_environment()
    # Nine digits allow more parts than any run has images.
    if not (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", str(text))):
        raise UsageError(f"argument `shard`={text!r} is not a part of a run", _HINT)
    return Shard(int(match[1]), int(match[2]))


def _from_environment() -> Shard:
    if f"{_SLURM}ID" in os.environ:
        first, step = _variable(f"{_SLURM}MIN", 1), _variable(f"{_SLURM}STEP", 1)
        index, rest = divmod(_variable(f"{_SLURM}ID") - first, max(step, 1))
        count = _variable(f"{_SLURM}COUNT")
        if first > 1:
            raise UsageError(
                f"argument `shard`=auto: the Slurm array begins with task {first}, so its parts are unknown",
                "To repeat a part of an earlier array, write the part and the number of parts: 7/64.",
            )
        if rest or index >= count:
            raise UsageError(
                "argument `shard`=auto: the tasks of the Slurm array are not numbered evenly",
                "Number them from 1 to the number of parts.",
            )
        return Shard(index + 1, count, f"{_SLURM}ID")
    for rank, number in _RANKS.items():
        if rank in os.environ:
            index, count = _variable(rank), _variable(number)
            if index >= count:
                raise UsageError(f"argument `shard`=auto: {rank} is {index}, but {number} is {count}", _HINT)
            return Shard(index + 1, count, rank)
    raise UsageError(
        f"argument `shard`=auto: none of these variables is set: {', '.join([f'{_SLURM}ID', *_RANKS])}", _HINT
    )


def _variable(name: str, default: int | None = None) -> int:
    """Return a number from the environment. Raise UsageError if it is missing or invalid."""
    text = os.environ.get(name, None if default is None else str(default))
    if text is None:
        raise UsageError(f"argument `shard`=auto: the variable {name} is not set", _HINT)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"argument `shard`=auto: the variable {name} is {text!r}, which is not a number", _HINT)
    return int(text)
