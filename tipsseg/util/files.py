"""Files that appear whole: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from types import TracebackType

from tipsseg.errors import OutputError

#: Temporary files begin with this. The dot hides them, from people and from `inputs.find`.
TEMPORARY_PREFIX = ".tipsseg-"

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
    errno.ELOOP: ("it is a symbolic link", "Remove the link, or choose another output folder."),
    errno.EFBIG: ("the system allows no larger file", "See `ulimit -f`, and run the same command again."),
}

#: What is wrong with one name or place, where other files may well be written.
_OF_ONE_FILE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL,
     errno.EILSEQ}
)  # fmt: skip


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; where the system refuses to tell, as for a name that is too long, there is none."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for such names


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; see `is_folder`."""
    return os.path.isfile(path)  # noqa: PTH113


def file_size(path: Path) -> int | None:
    """The size of a file in bytes; None where there is none of that name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_there(path: Path) -> bool:
    """Whether a file or a folder is there. A text that is too long for a name, such as a list of names, names none."""
    try:
        return path.exists()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:  # a name that no file can have
        return False


class RegularFile(BufferedReader):
    """A regular file, open for reading. As a context manager it names itself in errors of reading."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also for a pipe or a device, which another program would wait for."""
        super().__init__(FileIO(path, "rb", opener=_open_regular))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what was read was read
            self.close()
        if isinstance(error, OSError):
            error.filename = error.filename or self.name


def open_regular(path: Path) -> RegularFile:
    """Open a regular file for reading; see RegularFile."""
    return RegularFile(path)


def _open_regular(path: str, flags: int) -> int:
    # Opening a pipe without a writer would wait for one.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _require_regular(descriptor, Path(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_appending(path: Path) -> int:
    """A descriptor to append to a regular file, and to read it; it is made where there is none.

    Raises OSError, also for a symbolic link.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _require_regular(descriptor, path)
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(descriptor: int, path: Path) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


#: A record of a run that is larger than this is none: run.json and classes.json grow with the classes alone.
RECORD_LIMIT = 64 << 20


def read_regular(path: Path, limit: int = RECORD_LIMIT) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", os.fspath(path))
    return data


def output_error(path: Path, error: OSError) -> OutputError:
    """The OutputError for an OSError that was met while writing `path`."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(path, reason, hint, only_this=error.errno in _OF_ONE_FILE)


@contextmanager
def atomic_path(path: Path, owner: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends, remove it when the block raises.

    Creates the parent folders. The temporary name is hidden, is like no other's on any machine, and keeps the suffix;
    `owner` is a part of it, by which `clean_up` tells whose it is.
    Readers see the old file or the new one, never a part. Raises OutputError where the system refuses, also for an
    OSError from inside the block.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{owner}{secrets.token_hex(8)}{path.suffix}"
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


def atomic_write(path: Path, data: bytes, owner: str = "") -> None:
    """Write `data` to `path` so that it appears whole or not at all, see `atomic_path`; raises OutputError."""
    with atomic_path(path, owner) as temporary:
        temporary.write_bytes(data)


def remove_file(path: Path) -> None:
    """Remove a file, where there is one. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def clean_up(folders: Iterable[Path], owner: str = "", keep: Container[str] = ()) -> None:
    """Remove what a process of this owner left in the folders under temporary names when it was killed, but what to `keep`.

    Whoever calls it has to know that no such process lives any more.
    """
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208  names are enough
                if name.startswith(TEMPORARY_PREFIX + owner) and name not in keep:
                    with suppress(OSError):
                        _remove(Path(folder, name), owner)


def clean_up_below(tops: Iterable[Path], owner: str = "") -> None:
    """`clean_up` these folders and all that are below them, but where a link leads."""
    for top in tops:
        if top.is_symlink():
            continue
        clean_up((Path(folder) for folder, _, _ in os.walk(top)), owner)


def _remove(path: Path, owner: str) -> None:
    if path.is_dir() and not path.is_symlink():
        # Under another name first: a part of a folder must not be taken for the whole of it.
        doomed = path.with_name(f"{TEMPORARY_PREFIX}{owner}{secrets.token_hex(8)}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink()


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """`value` as JSON in UTF-8, readable names kept; undecodable bytes of file names are spelled out as text.

    Python carries such bytes as lone surrogates. Those have no UTF-8 form, and as JSON escapes other languages' readers
    refuse them; so they become the visible text `\\udc..`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode("utf-8")


def reason_of(error: Exception) -> str:
    """What an error of the file system means, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
