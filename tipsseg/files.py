"""Files that appear whole: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tipsseg.errors import OutputError

#: Temporary files begin with this. The dot hides them, from people and from `inputs.find`.
TEMPORARY_PREFIX = ".tipsseg-"

_counter = itertools.count()

_SURROGATE = re.compile("[\ud800-\udfff]")

_REASONS = {
    errno.ENOSPC: ("no space left on the device", "Free some space and run the same command again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again."),
    errno.EACCES: ("no permission", "Choose another output folder."),
    errno.EPERM: ("no permission", "Choose another output folder."),
    errno.EROFS: ("the file system is read-only", "Choose another output folder."),
    errno.ENAMETOOLONG: ("the name is too long", "Shorten the input's name or the output folder's path."),
    errno.EISDIR: ("a folder has this name", "Move the folder away, or choose another output folder."),
    errno.ENOTDIR: ("one of its parent folders is a file", "Move that file away, or choose another output folder."),
    errno.EEXIST: ("one of its parent folders is a file", "Move that file away, or choose another output folder."),
}


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; where the system refuses to tell, as for a name that is too long, there is none."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for such names


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; see `is_folder`."""
    return os.path.isfile(path)  # noqa: PTH113


def output_error(path: Path, error: OSError) -> OutputError:
    """The OutputError for an OSError that was met while writing `path`."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(path, reason, hint)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends, remove it when the block raises.

    Creates the parent folders. The temporary name is hidden, unique to this process and call, and keeps the suffix.
    Readers see the old file or the new one, never a part. Raises OutputError where the system refuses, also for an
    OSError from inside the block.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{next(_counter)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that it appears whole or not at all; raises OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """`value` as JSON in UTF-8, readable names kept; undecodable bytes of file names are spelled out as text.

    Python carries such bytes as lone surrogates. Those have no UTF-8 form, and as JSON escapes other languages' readers
    refuse them; so they become the visible text `\\udc..`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode("utf-8")
