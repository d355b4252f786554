"""Open regular files only; write files atomically, by renaming a temporary file in the same folder; tell changed files."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BufferedReader, BufferedWriter, BytesIO, FileIO
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType

from tipsseg.address import has_scheme
from tipsseg.errors import OutputError, UsageError


def local_path(what: str, value: str | os.PathLike[str]) -> Path:
    """Return the path of `what`, a file or a folder on this machine. Raise UsageError for a URL."""
    if has_scheme(os.fspath(value).removeprefix("=")):  # of `-o=URL`
        raise UsageError(
            what + " must be a local path, not a URL", "Download it first, or mount it. Only images may be URLs."
        )
    return Path(value)


#: The prefix of temporary files. The dot hides them from users and from the search for images.
TEMPORARY_PREFIX = ".tipsseg-"

#: A name of this machine in temporary files.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]

_REASONS = {
    errno.ENOSPC: ("no space left on the device", "Free some space and run the same command again."),
    errno.EDQUOT: ("disk quota exceeded", "Free some space and run the same command again."),
    errno.EACCES: ("no permission", "Choose another output folder."),
    errno.EPERM: ("no permission", "Choose another output folder."),
    errno.EROFS: ("the file system is read-only", "Choose another output folder."),
    errno.ENAMETOOLONG: ("the name is too long", "Shorten the name of the input, or the path of the output folder."),
    errno.EISDIR: ("a folder with this name exists", "Move the folder away, or choose another output folder."),
    errno.ENOTDIR: ("one of its parent folders is a file", "Move that file away, or choose another output folder."),
    errno.EEXIST: ("one of its parent folders is a file", "Move that file away, or choose another output folder."),
    errno.ELOOP: ("it is a symbolic link", "Remove the link, or choose another output folder."),
    errno.EXDEV: ("it would come from another file system", "Merge into a new folder instead."),
    errno.EFBIG: ("the file exceeds the size limit of the system", "Raise `ulimit -f` and run the same command again."),
}

#: Errors that concern a single path: other files can still be written.
_PATH_ERRORS = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL,
     errno.EILSEQ}
)  # fmt: skip


def is_folder(path: Path) -> bool:
    """Return True if a path is a folder; False on any error, such as a name that is too long."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for such names


def is_file(path: Path) -> bool:
    """Return True if a path is a file; False on any error."""
    return os.path.isfile(path)  # noqa: PTH113


def file_size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if the path is not a regular file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def path_exists(path: Path) -> bool:
    """Return True if a file or folder exists. Return False for text that is too long for a path."""
    try:
        return path.exists()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:  # an invalid path
        return False


class RegularFile(BufferedReader):
    """A regular file, open for reading. As a context manager, it adds its path to read errors."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raise OSError, also for a pipe or a device, which could block forever."""
        super().__init__(FileIO(path, "rb", opener=_open_regular))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # all data has been read
            self.close()
        if isinstance(error, OSError):
            error.filename = error.filename or self.name


def open_regular(path: Path) -> RegularFile:
    return RegularFile(path)


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    return _require_regular(os.open(path, flags | getattr(os, "O_NONBLOCK", 0)), path)


def _require_regular(descriptor: int, path: str) -> int:
    """Return the descriptor of a regular file. Close the descriptor of anything else, and raise OSError."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "not a regular file", path)


#: The size limit of a record in bytes. run.json and classes.json grow with the number of classes only.
RECORD_LIMIT = 64 << 20


def read_regular(path: Path, limit: int = RECORD_LIMIT) -> bytes:
    """Read a regular file of at most `limit` bytes. Raise OSError if that fails."""
    with open_regular(path) as file:
        # Not `limit + 1`: read() allocates the requested size first.
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", os.fspath(path))
    return data


def output_error(path: Path, error: OSError) -> OutputError:
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(path, reason, hint, only_this=error.errno in _PATH_ERRORS)


def process_owner() -> str:
    """Return the part of a temporary name that tells this machine and this process."""
    return f"{_MACHINE}-{os.getpid()}-"


def is_left(path: Path) -> bool:
    """Return True for a temporary file of a process on this machine that has ended; False if that is unknown."""
    machine, _, rest = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")
    process = rest.partition("-")[0]
    return machine == _MACHINE and process.isdecimal() and not is_alive(int(process))


def list_left(folder: Path) -> list[Path]:
    """Return the temporary files in a folder whose process on this machine has ended."""
    with suppress(OSError):
        return [path for path in folder.glob(f"{TEMPORARY_PREFIX}*") if is_left(path)]
    return []


@lru_cache(4096)
def _remove_left_once(folder: Path) -> None:
    """Remove the temporary files in a folder whose process on this machine has ended. A large folder takes long to list."""
    for path in list_left(folder):
        with suppress(OSError):
            _remove(path)


def temporary_path(path: Path) -> Path:
    """Return a new temporary path in the folder of a file. The first one in a folder removes what killed commands left there."""
    _remove_left_once(path.parent.absolute())
    return path.parent / f"{TEMPORARY_PREFIX}{process_owner()}{secrets.token_hex(8)}{path.suffix}"


@contextmanager
def staged_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (see `atomic_path`). If the block raises, remove it."""
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` after the block, or remove it if the block raises.

    Creates the parent folders. The temporary name is hidden and random, and has the suffix of `path`. Readers see the old file or
    the new file, never a partial one. Raise OutputError if the file cannot be written, or the block raised an OSError.
    """
    with staged_path(path) as temporary:
        yield temporary
        temporary.replace(path)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file atomically; see `atomic_path`. Raise OutputError if that fails."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_new(path: Path, data: bytes, folder: Path) -> bool:
    """Write a file atomically if it does not exist. Return False if it does, also if another process was faster.

    The temporary file is in `folder`, on the same file system. Raise OutputError if that fails.
    """
    temporary = temporary_path(folder / path.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.link(temporary, path)  # fails if the file exists, on file systems of networks too
    except FileExistsError:
        return False
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return True


def remove_file(path: Path) -> None:
    """Remove a file if it exists. Raise OutputError if that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def set_aside(path: Path) -> Path:
    """Rename a file that another program changed, so that it is not lost, and return its new path.

    Raise OutputError if that fails.
    """
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.changed{'' if number == 1 else number}")):
        number += 1
    try:
        return path.rename(aside)
    except OSError as error:
        raise output_error(path, error) from error


def clean_up(folders: Iterable[Path], keep: Container[str] = ()) -> None:
    """Remove all temporary files in folders but those named in `keep`. The caller must ensure that no process is writing there."""
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208  names are enough
                if name.startswith(TEMPORARY_PREFIX) and name not in keep:
                    with suppress(OSError):
                        _remove(Path(folder, name))


def clean_up_below(tops: Iterable[Path]) -> None:
    """Call `clean_up` for folders and all their subfolders. Does not follow links."""
    for top in tops:
        if not top.is_symlink():
            clean_up(Path(folder) for folder, _, _ in os.walk(top))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Rename it first: a partly removed folder must not be mistaken for a complete one.
        doomed = path.with_name(f"{TEMPORARY_PREFIX}{process_owner()}{secrets.token_hex(8)}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink()


def is_alive(process: int) -> bool:
    """Return True if a process runs, or may run, as on Windows, where signal 0 would end it."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's process
        return True
    return True


def describe_error(error: Exception) -> str:
    """Describe a file system error in a few words."""
    if isinstance(error, OSError) and error.errno is None:  # raised by tipsseg, with a text of its own
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no read permission"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def cache_folder() -> Path | None:
    """Return tipsseg's cache folder, which may not exist; None if the user has no home folder."""
    if own := os.environ.get("TIPSSEG_CACHE"):
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(user) if user else Path.home() / ".cache") / "tipsseg"
    except RuntimeError:
        return None


@cache
def processor_name() -> str:
    """Return the name of the processor, such as "AMD EPYC 9004", or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return next(names, "") or platform.processor() or platform.machine()


# ---- changed files ----


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


def content_digest(path: Path) -> str:
    """Return the sha256 of a regular file in hex. Raise OSError if that fails."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path, digest: str | None = None) -> Fingerprint:
    """Return the fingerprint of a regular file of any size, with its sha256. Pass `digest` if it is known.

    Raise OSError if that fails.
    """
    sha256 = content_digest(path) if digest is None else digest
    status = path.stat()
    return Fingerprint(status.st_size, status.st_mtime_ns, sha256)


# ---- copies ----


def copy_file(source: FileIO | BytesIO, target: BufferedWriter) -> None:
    """Copy the rest of an open file. Where the file system can, the copy shares its blocks until one of the two changes."""
    with suppress(AttributeError, OSError):  # another system, a file in memory, or two file systems
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
            pass
    shutil.copyfileobj(source, target)
    target.flush()


def is_same(one: Path, other: Path) -> bool:
    """Return True if two paths refer to the same file or folder; False if one of them does not exist."""
    with suppress(OSError):
        return one.samefile(other)
    return False


# ---- names in records ----


_ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def is_inside(name: str) -> bool:
    """Return True if a name in a record is a relative path inside its folder."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and "\0" not in name
        and not PurePath(name).is_absolute()
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and name != "."
    )


def actual_path(folder: Path, name: str) -> Path:
    """Return the file path for a name in a record, below `folder`; see `actual_name`."""
    literal = folder / name
    return literal if "\\udc" not in name or os.path.lexists(literal) else folder / actual_name(name)


def actual_name(name: str) -> str:
    """Convert a name in a record to a file name. Reverses `types.printable_path`."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
