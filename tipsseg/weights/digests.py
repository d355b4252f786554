"""Compare files with their expected hashes, and cache verified hashes in stamps.

A stamp records the hash of a file together with its size, inode, modification time and ctime. No program can set the ctime, so a
file is hashed again after every write, even if its size and modification time were restored. A stamp is a small JSON file
in the folder `verified` of tipsseg's cache. Stamps only save time: if one cannot be read or written, the file is hashed again.
Stamps are written only on request.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tipsseg.errors import OutputError
from tipsseg.util.files import atomic_write, cache_folder
from tipsseg.util.json_values import parse

Kind = Literal["sha256", "git-sha1"]

_HEX = re.compile(r"[0-9a-f]+")
_KIND_BY_LENGTH: dict[int, Kind] = {64: "sha256", 40: "git-sha1"}
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected hash of a file, and its size in bytes if known."""

    kind: Kind
    digest: str
    size: int | None = None


class Mismatch(NamedTuple):
    """A difference between a file and its expected size or hash; `what` is "size", "sha256" or "git-sha1"."""

    what: str
    expected: str
    got: str


def expected_from_name(name: str, size: int | None = None) -> Expected | None:
    """Parse a hub ETag or the name of a cached blob: a sha256 for large files, a git blob hash for small ones.

    Return None for any other text.
    """
    kind = _KIND_BY_LENGTH.get(len(name)) if _HEX.fullmatch(name) else None
    return None if kind is None else Expected(kind, name, size)


def hash_file(path: Path, kind: Kind) -> str:
    """Return the hash of a file in hex. Raises OSError."""
    if kind == "sha256":
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha1.update(block)
    return sha1.hexdigest()


def find_mismatch(
    path: Path, expected: Expected, *, trust_stamp: bool = True, keep_stamp: bool = False
) -> Mismatch | None:
    """Compare a file with its expected size, then with its hash; return the first difference. Raises OSError.

    A file with a valid stamp is not hashed again. With `keep_stamp`, a stamp is written if the file matches.
    """
    before = _stamp(path, expected)
    size = before["size"]
    if expected.size not in (None, size):
        return Mismatch("size", f"{expected.size} bytes", f"{size} bytes")
    if trust_stamp and _load_stamp(path) == before:
        return None
    got = hash_file(path, expected.kind)
    if got != expected.digest:
        return Mismatch(expected.kind, expected.digest, got)
    if keep_stamp and _stamp(path, expected) == before:  # otherwise the file changed while it was hashed
        _save_stamp(path, before)
    return None


def sha256_of(path: Path, *, keep_stamp: bool = False) -> str:
    """Return the sha256 of a file in hex, from its stamp if the stamp is valid. Raises OSError."""
    stamped = read_stamp(path)
    if stamped is not None and stamped.kind == "sha256" and _load_stamp(path) == _stamp(path, stamped):
        return stamped.digest
    before = _state(path)
    hashed = Expected("sha256", hash_file(path, "sha256"))
    if keep_stamp and _state(path) == before:  # otherwise the file changed while it was hashed
        _save_stamp(path, _stamp(path, hashed))
    return hashed.digest


def read_stamp(path: Path) -> Expected | None:
    """Return the hash in the stamp of a path, even if the file changed since; None if it has no stamp."""
    stamp = _load_stamp(path)
    digest = stamp.get("digest")
    return expected_from_name(digest) if isinstance(digest, str) and stamp.get("path") == str(path.resolve()) else None


def _stamp(path: Path, expected: Expected) -> dict[str, object]:
    return {**_state(path), "kind": expected.kind, "digest": expected.digest}


def _state(path: Path) -> dict[str, object]:
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _stamp_file(path: Path) -> Path:
    cache = cache_folder()
    if cache is None:
        raise FileNotFoundError("no cache folder")
    return cache / "verified" / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json")


def _load_stamp(path: Path) -> dict[str, object]:
    try:
        stamp = parse(_stamp_file(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _save_stamp(path: Path, stamp: dict[str, object]) -> None:
    with contextlib.suppress(OutputError, FileNotFoundError):
        atomic_write(_stamp_file(path), json.dumps(stamp).encode())
