"""Hash files, and cache their hashes in stamps.

A stamp records the sha256 of a file together with its size, inode, modification time and ctime. No program can set the ctime, so a
file is hashed again after every write, even if its size and modification time were restored. A stamp is a small JSON file in the
folder `verified` of tipsseg's cache. Stamps only save time: if one cannot be read or written, the file is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tipsseg.errors import OutputError
from tipsseg.util.files import atomic_write, cache_folder


def sha256_of(path: Path, *, trust_stamp: bool = True, keep_stamp: bool = False) -> str:
    """Return the sha256 of a file in hex, from its stamp if the file is unchanged. Raises OSError.

    With `keep_stamp`, a stamp is written.
    """
    status = path.stat()  # before the file is hashed, so that the stamp is invalid if the file changes meanwhile
    state = {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }
    stamp = _read_stamp(path)
    if trust_stamp and stamp == {**state, "sha256": stamp.get("sha256")}:
        return str(stamp["sha256"])
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    stamp_file = _stamp_file(path)
    if keep_stamp and stamp_file is not None:
        with contextlib.suppress(OutputError):
            atomic_write(stamp_file, json.dumps({**state, "sha256": sha256}).encode())
    return sha256


def _read_stamp(path: Path) -> dict[str, Any]:
    stamp_file = _stamp_file(path)
    try:
        stamp = {} if stamp_file is None else json.loads(stamp_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _stamp_file(path: Path) -> Path | None:
    cache = cache_folder()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json"
    return None if cache is None else cache / "verified" / name
