"""Values of options: the interval of the frames of a video, the size of a file, and the shard of a run that one process labels."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field

from tipsseg.errors import UsageError, Words

EVERY_HINT = Words("Set {every} to 1s for a frame per second, 0.5s for two, or 10 for every tenth frame.")


@dataclass(frozen=True, slots=True)
class Every:
    """An interval: a number of frames, or a time in seconds."""

    frames: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.frames is None else str(self.frames)


def parse_every(text: object) -> Every:
    """Parse an interval such as "1s", "0.5s" or "10" (frames). Raise UsageError if it is neither, or is not positive."""
    if isinstance(text, Every):
        return text
    match = re.fullmatch(r"([0-9]{1,9})|([0-9]{0,9}\.?[0-9]{1,9})s", str(text).strip())
    if match is None or not float(match[1] or match[2]):
        raise UsageError(Words("{every}={text} is not a positive interval of a video", text=text), EVERY_HINT)
    return Every(frames=int(match[1])) if match[1] else Every(seconds=float(match[2]))


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


class ByteSize(int):
    """A number of bytes, written as 500MB."""

    def __str__(self) -> str:
        unit = next(unit for unit in ("gb", "mb", "kb", "") if not self % _UNITS[unit])
        return f"{self // _UNITS[unit]}{unit.upper()}"


#: The default size of the shards of a data set.
SHARD_SIZE = ByteSize(500_000_000)


def parse_size(size: object) -> ByteSize:
    """Parse a number of bytes, or a text such as "500MB". Raise UsageError if it is neither, or is not positive."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(kb|mb|gb|)", str(size).strip().lower())
    value = 0 if match is None else round(float(match[1]) * _UNITS[match[2]])
    if value < 1:
        raise UsageError(Words("{shard_size}={size} is not a size", size=size), "For example: 500MB or 2GB.")
    return ByteSize(value)


_HINT = "Write the part and the number of parts: 1/8 to 8/8 for 8 processes."

#: The variables with which SkyPilot, torchrun and Open MPI number their processes from 0, and those with the number of processes.
_RANKS = {
    "SKYPILOT_JOB_RANK": "SKYPILOT_NUM_JOBS",
    "RANK": "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
}


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (1..`count`) of `count` parts; `source` is the variable that it was read from.

    Raise UsageError if there is no such part.
    """

    index: int
    count: int
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(
                Words("{shard}={self}: the part must be in 1 to {count}", self=self, count=self.count), _HINT
            )

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
        raise UsageError(Words("{shard}={text} is not a part of a run", text=repr(text)), _HINT)
    return Shard(int(match[1]), int(match[2]))


def _from_environment() -> Shard:
    """Return the shard of this process. Raise UsageError if the variables of its launcher are missing or unfit."""
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        first, step = _variable("SLURM_ARRAY_TASK_MIN", "1"), _variable("SLURM_ARRAY_TASK_STEP", "1")
        index, rest = divmod(_variable("SLURM_ARRAY_TASK_ID") - first, max(step, 1))
        count = _variable("SLURM_ARRAY_TASK_COUNT")
        if first > 1:
            raise UsageError(
                Words("{shard}=auto: the Slurm array begins with task {first}, so its parts are unknown", first=first),
                "To repeat a part of an earlier array, write the part and the number of parts: 7/64.",
            )
        if rest or index >= count:
            raise UsageError(
                Words("{shard}=auto: the tasks of the Slurm array are not numbered evenly"),
                "Number them from 1 to the number of parts.",
            )
        return Shard(index + 1, count, "SLURM_ARRAY_TASK_ID")
    for rank, number in _RANKS.items():
        if rank in os.environ:
            return Shard(_variable(rank) + 1, _variable(number), rank)
    names = ", ".join(["SLURM_ARRAY_TASK_ID", *_RANKS])
    raise UsageError(Words("{shard}=auto: none of these variables is set: {names}", names=names), _HINT)


def _variable(name: str, default: str = "") -> int:
    """Return a number from the environment. Raise UsageError if it is missing or invalid."""
    text = os.environ.get(name, default)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(
            Words("{shard}=auto: the variable {name} is {text}, which is not a number", name=name, text=repr(text)),
            _HINT,
        )
    return int(text)
