"""A shard: one part of the images of a run that several processes share."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tipsseg.errors import UsageError

_HINT = "Give the part and the number of parts, with 8 processes from 1/8 to 8/8."


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (1..`count`) of `count` parts. Raises UsageError for numbers that cannot be."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"argument `shard`={self}: a run has 1 part or more", _HINT)
        if not 1 <= self.index <= self.count:
            raise UsageError(f"argument `shard`={self}: there is no part {self.index} of {self.count}", _HINT)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder(self) -> str:
        """The name of its folder in SHARDS_FOLDER."""
        return f"{self.index}-of-{self.count}"

    def takes(self, name: str) -> bool:
        """Whether the image of that name (ImageRef.name) belongs to it; to exactly one of all shards, the same on every machine."""
        digest = hashlib.sha256(name.encode("utf-8")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def parse_shard(text: str) -> Shard:
    """The shard of a text such as "3/8". Raises UsageError."""
    # Nine digits: more parts than there are images.
    if not (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(f"argument `shard`={text!r} is not a part of a run", _HINT)
    return Shard(int(match[1]), int(match[2]))
