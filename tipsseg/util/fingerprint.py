"""Detect changed files: by size and modification time first, then by a hash of the content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tipsseg.util.files import open_regular

#: Files above this size in bytes are compared by size and time alone: hashing them takes too long.
HASH_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Size, modification time and content hash of a file.

    Attributes:
        size: The size in bytes.
        mtime_ns: The modification time in nanoseconds since 1970.
        sha256: The hash of the content in hex; None for files above HASH_LIMIT.
    """

    size: int
    mtime_ns: int
    sha256: str | None

    def same_content(self, other: Fingerprint) -> bool:
        """Compare two fingerprints by hash, or by size and time if one has no hash."""
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)

    def matches(self, path: Path) -> bool:
        """Return True if a file has this size and time, or this content with a different time, for example after copying."""
        try:
            status = path.stat()
            if status.st_size != self.size:
                return False
            if status.st_mtime_ns == self.mtime_ns:
                return True
            return self.sha256 is not None and fingerprint(path).sha256 == self.sha256
        except OSError:
            return False

    def same_bytes(self, path: Path) -> bool:
        """Return True if a file has this hash. Raises OSError."""
        return content_digest(path) == self.sha256


def content_digest(path: Path) -> str:
    """Return the sha256 of a regular file in hex. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if status.st_size <= HASH_LIMIT else None
    return Fingerprint(status.st_size, status.st_mtime_ns, sha256)


def stamp(path: Path, digest: str | None = None) -> Fingerprint:
    """Return the fingerprint of a regular file of any size, with its sha256. Pass `digest` if it is known. Raises OSError."""
    sha256 = content_digest(path) if digest is None else digest
    status = path.stat()
    return Fingerprint(status.st_size, status.st_mtime_ns, sha256)
