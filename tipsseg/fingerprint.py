"""Is an input still the file that was labelled? Size and modification time first, then the content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

#: Larger files go by size and time alone: reading them twice costs more than it is worth.
HASH_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells a file from what it was.

    size      bytes
    mtime_ns  modification time, nanoseconds since 1970
    sha256    of the content, in hex; None for files above HASH_LIMIT
    """

    size: int
    mtime_ns: int
    sha256: str | None

    def same_content(self, other: Fingerprint) -> bool:
        """Whether both are of one content, as far as is known without reading: of the same hash, or else size and time."""
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)

    def matches(self, path: Path) -> bool:
        """Whether the file is the same: of that size and time, or of that content whatever its time, as after copying."""
        try:
            status = path.stat()
            if status.st_size != self.size:
                return False
            if status.st_mtime_ns == self.mtime_ns:
                return True
            return self.sha256 is not None and fingerprint(path).sha256 == self.sha256
        except OSError:
            return False


def fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of a file. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if status.st_size <= HASH_LIMIT else None
    return Fingerprint(status.st_size, status.st_mtime_ns, sha256)
