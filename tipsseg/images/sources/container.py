"""Define the protocol of files with images in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

#: Maximum size of an image in an archive or a table, in bytes. It protects memory against archives that expand without end.
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Stamp:
    """The version of an image: equal stamps mean equal content.

    Attributes:
        size: The size in bytes; None if only reading tells it.
        mtime_ns: The modification time of the file, or of the container, in nanoseconds since 1970; for a URL, a number from
            its ETag.
        inode: Distinguishes files of the same time; 0 for URLs.
    """

    size: int | None
    mtime_ns: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a container, or a part of it that cannot be read.

    Attributes:
        name: The name in the container: a relative path without "..".
        fault: The reason why it cannot be read; "" for an image.
    """

    name: str
    fault: str = ""


class Container(Protocol):
    """A file with images in it, closed once nobody uses it.

    All methods are thread-safe, and raise OSError with a reason if the file cannot be read.
    """

    def members(self) -> Iterator[Member]:
        """Yield all members in order, images or not."""

    def size(self, name: str) -> int | None:
        """Return the size of a member in bytes; None if only reading tells it. Raise FileNotFoundError if it is missing."""

    def open(self, name: str) -> BytesIO:
        """Read a member. Raise FileNotFoundError if it is missing."""
