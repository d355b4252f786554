"""Write files whole, under a temporary name in the same folder that is then renamed; open regular files only."""

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
    """Tell whether a path is a folder; False if the system refuses to tell, for example for a name that is too long."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for such names


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; False if the system refuses to tell."""
    return os.path.isfile(path)  # noqa: PTH113


def file_size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if the path is not a file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_there(path: Path) -> bool:
    """Tell whether a file or a folder exists. A text that is too long for a name, such as a list of names, names none."""
    try:
        return path.exists()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:  # a name that no file can have
        return False


class RegularFile(BufferedReader):
    """A regular file, open for reading. As a context manager it puts its name into errors of reading."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError, for a pipe or a device too: reading from it could wait for ever."""
        super().__init__(FileIO(path, "rb", opener=_open_regular))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what was read was read
            self.close()
        if isinstance(error, OSError):
            error.filename = error.filename or self.name


def open_regular(path: Path) -> RegularFile:
    """Open a regular file for reading; see RegularFile. Raises OSError."""
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
    """Open a regular file to append to it and to read it, and create it where it is absent.

    Returns:
        A file descriptor.

    Raises:
        OSError: Where the system refuses, and for a symbolic link.
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


#: Bytes of a record of a run at most: run.json and classes.json grow with the number of classes alone.
RECORD_LIMIT = 64 << 20


def read_regular(path: Path, limit: int = RECORD_LIMIT) -> bytes:
    """Read a regular file of at most `limit` bytes. Raises OSError."""
    with open_regular(path) as file:
        # One byte more than it has: reading asks for the memory first.
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", os.fspath(path))
    return data


def output_error(path: Path, error: OSError) -> OutputError:
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(path, reason, hint, only_this=error.errno in _OF_ONE_FILE)


def read_error(path: Path, error: OSError) -> OutputError:
    """Return the error for a file that cannot be read, and is to be written again."""
    return OutputError(path, f"it cannot be read: {error.strerror or error}", "Check its permissions.")


def temporary_path(path: Path, owner: str = "") -> Path:
    """Return a new temporary name for a file, in its folder; see `atomic_path`."""
    return path.parent / f"{TEMPORARY_PREFIX}{owner}{secrets.token_hex(8)}{path.suffix}"


@contextmanager
def atomic_path(path: Path, owner: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends, remove it when the block raises.

    Creates the parent folders. The temporary name is hidden, random, and has the suffix of `path`. Readers see the old file or
    the new file, never a part of one.

    Args:
        path: The file to write.
        owner: A part of the temporary name, by which `clean_up` finds the files of one process.

    Raises:
        OutputError: Where the system refuses, and for any OSError from inside the block.
    """
    temporary = temporary_path(path, owner)
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
    """Write `data` to `path`; the file appears whole or not at all, see `atomic_path`. Raises OutputError."""
    with atomic_path(path, owner) as temporary:
        temporary.write_bytes(data)


def remove_file(path: Path) -> None:
    """Remove a file if it exists. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def clean_up(folders: Iterable[Path], owner: str = "", keep: Container[str] = ()) -> None:
    """Remove the temporary files that a killed process left in folders. The caller must know that the process no longer runs.

    Args:
        folders: The folders to look into.
        owner: Only files of this owner; see `atomic_path`.
        keep: Names of files to keep.
    """
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208  names are enough
                if name.startswith(TEMPORARY_PREFIX + owner) and name not in keep:
                    with suppress(OSError):
                        _remove(Path(folder, name), owner)


def clean_up_below(tops: Iterable[Path], owner: str = "") -> None:
    """`clean_up` these folders and all folders below them; links are not followed."""
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
    """Write a value as JSON in UTF-8, with names readable; bytes of file names that are no UTF-8 become text.

    Python holds such bytes as lone surrogates. They have no UTF-8 form, and readers in other languages refuse them as JSON
    escapes. They become the visible text `\\udc..`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode("utf-8")


def reason_of(error: Exception) -> str:
    """Describe an error of the file system in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def cache_folder() -> Path | None:
    """Return the folder, which may not exist yet; None if the user has no home folder."""
    own = os.environ.get("TIPSSEG_CACHE")
    if own:
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(user) if user else Path.home() / ".cache") / "tipsseg"
    except RuntimeError:
        return None
