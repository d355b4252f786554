"""Shards: subsets of the images, for splitting a run across processes or machines."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tipsseg.errors import UsageError

_HINT = "Write the part and the number of parts: 1/8 to 8/8 for 8 processes."


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (1..`count`) of `count` parts. Raises UsageError if a number is invalid."""

    index: int
    count: int

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
        digest = hashlib.sha256(name.encode("utf-8")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def parse_shard(text: str) -> Shard:
    """Parse a shard such as "3/8". Raise UsageError if it is invalid."""
    # Nine digits allow more parts than any run has images.
    if not (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(f"argument `shard`={text!r} is not a part of a run", _HINT)
    return Shard(int(match[1]), int(match[2]))
