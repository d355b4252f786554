"""Put files into an output folder, and remove them. What tipsseg did not write goes to the trash, and is never destroyed.

A file is ours if it has the content that tipsseg wrote there, or that it would write now. No link is followed out of the folder.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from tipsseg.errors import ImageError, OutputError
from tipsseg.folder.entry import ROWS, FileRow
from tipsseg.images.access import open_source
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import (
    actual_path,
    content_digest,
    copy_file,
    output_error,
    staged_path,
    stamp,
    temporary_path,
)

_OUTSIDE = "Put a folder in the place of the link, or write into another folder."

#: The folder of files that tipsseg did not write, or that a person made, and that a command replaced or removed.
TRASH = "replaced"

#: The state of a file: absent, as tipsseg wrote it, or something else.
Look = Literal["gone", "ours", "other"]

#: A content, its pieces, or a function that writes it to a path.
Content = bytes | Iterable[bytes] | Callable[[Path], None]

#: Tells whether a file may be destroyed.
Judge = Callable[[Path], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file that still has another name.

    Attributes:
        temporary: Its path.
        row: Its record once it is in place.
    """

    temporary: Path
    row: FileRow

    def discard(self) -> None:
        """Remove the temporary file, unless it is in place by now."""
        with suppress(OSError):
            self.temporary.unlink()


def _never(_: Path) -> bool:
    return False


class Files:
    """The files below an output folder.

    Attributes:
        trashed: The files that this command moved to the trash, by their paths there.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.trashed: list[Path] = []
        self._real, self._trash, self._lock = "", Path(), threading.Lock()
        self._renamed = set[Path]()

    def path(self, place: str) -> Path:
        return actual_path(self.output, place)

    def place(self, path: Path) -> str:
        return printable_path(path.relative_to(self.output))

    def look(self, row: FileRow | None, place: str = "") -> Look:
        """Compare the file at a place with its record; a file of the recorded size and time counts as ours."""
        path = self.path(row.place if row else place)
        try:
            status = path.lstat()
        except (
            OSError,
            ValueError,
        ):  # absent or out of reach: writing reports the reason. Of a damaged cache, it may be no path
            return "gone"
        if row is None:
            return "other"
        if (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns):
            return "ours"
        return "ours" if digest_of(path) in row.digests else "other"

    def stage(self, name: str, path: Path, data: Content, shows: str = "", *, synced: bool = False) -> StagedFile:
        """Write a file under a temporary name in its folder; with `synced`, to the disk. Raise OutputError if that fails.

        Safe in any thread or process.
        """
        self.refuse_outside(path)
        with staged_path(path) as temporary:
            if callable(data):
                data(temporary)
            else:
                with temporary.open("wb") as target:
                    target.writelines([data] if isinstance(data, bytes) else data)
            if synced:
                with temporary.open("rb+") as target:
                    os.fsync(target.fileno())
            written = stamp(temporary, hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else None)
        row = FileRow(place=self.place(path), name=name, digest="", shows=shows)
        return StagedFile(temporary=temporary, row=row.stamped(written))

    def put(self, file: StagedFile, ours: Iterable[str] = (), may_go: Judge = _never) -> None:
        """Give a staged file its name. What was there goes to the trash, unless it is ours.

        Args:
            file: The file.
            ours: Digests of contents that tipsseg wrote there.
            may_go: Tells of another content whether it may be destroyed.

        Raises:
            OutputError: The file cannot have its name.
        """
        path = self.path(file.row.place)
        try:
            known = {file.row.digest, *ours}
            seen = self._save(path, file.row.place, known, may_go)
            old = _exchange(file.temporary, path)
            if old is not None and _status(old) != seen:  # somebody saved it meanwhile
                self._clear(old, file.row.place, known, may_go)
            if old is not None:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        self._renamed.add(path.parent)

    def sync(self) -> None:
        """Wait until the new names of files are on the disk."""
        for folder in self._renamed:
            with suppress(OSError):  # a system that cannot
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        self._renamed.clear()

    def _save(self, path: Path, place: str, ours: Container[str], may_go: Judge) -> object:
        """Put a file into the trash too if it is not ours: its place is never empty. Return its status; None if there is none."""
        seen = _status(path)
        if seen is None or (path.is_dir() and not path.is_symlink()):
            return None
        if digest_of(path) not in ours and not may_go(path):
            target = self._trash_path(place)
            try:
                os.link(path, target, follow_symlinks=False)
            except OSError:  # a file system that cannot
                shutil.copy2(path, target, follow_symlinks=False)
        return seen

    def _clear(self, path: Path, place: str, ours: Container[str], may_go: Judge) -> object:
        """Move a file to the trash if it is not ours. Return the status of a file that is ours, None if there is none."""
        seen = _status(path)
        if seen is None or (path.is_dir() and not path.is_symlink()):
            return None
        if digest_of(path) in ours or may_go(path):
            return seen
        path.rename(self._trash_path(place))
        return None

    def put_picture(self, ref: ImageRef, name: str, place: Path, row: FileRow | None) -> FileRow:
        """Put a copy of an image in place. Raise OutputError if that fails, or a link leads out of the folder."""
        self.refuse_outside(place)
        with staged_path(place) as temporary, open_source(ref.path) as source:
            with temporary.open("wb") as copy:
                copy_file(source, copy)
            file = StagedFile(
                temporary=temporary,
                row=FileRow(place=self.place(place), name=name, digest="").stamped(stamp(temporary)),
            )
            self.put(file, () if row is None else (row.digest,))
        return file.row

    def remove(self, place: str, ours: Container[str] = (), may_go: Judge = _never) -> None:
        """Remove a file, and the folders that are empty then. It goes to the trash, unless it is ours (see `put`).

        Raise OutputError if that fails.
        """
        path = self.path(place)
        self.refuse_outside(path)
        try:
            if (seen := self._clear(path, place, ours, may_go)) is not None:
                old = temporary_path(path)
                path.rename(old)
                if _status(old) != seen:  # somebody saved it meanwhile
                    self._clear(old, place, ours, may_go)
                old.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        with suppress(OSError):
            os.removedirs(path.parent)  # only empty folders

    def remove_row(self, row: FileRow) -> None:
        """Remove a derived file, which goes to the trash if a person changed it."""
        if row.digest != ROWS:
            self.remove(row.place, row.digests)

    def _trash_path(self, place: str) -> Path:
        """Return a new path in the trash for a file from a place. Raise OSError if its folder cannot be made."""
        with self._lock:
            if not self.trashed:
                self._trash = _new_trash(self.output)
            target = first = self._trash / self.path(place).relative_to(self.output)
            number = 1
            while target in self.trashed:
                number += 1
                target = first.with_name(f"{first.stem}.{number}{first.suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.trashed.append(target)
            return target

    def refuse_outside(self, path: Path) -> None:
        """Raise OutputError if a link in a path leads out of the folder."""
        self._real = self._real or os.path.realpath(self.output)
        real = os.path.realpath(path.parent)
        if not Path(real).is_relative_to(self._real):
            raise OutputError(path, f"a link leads out of the output folder, to {real}", _OUTSIDE, only_this=True)


def _new_trash(output: Path) -> Path:
    """Make the folder of this command in the trash, named after the time. Raise OSError if that fails."""
    name, number = datetime.now().strftime("%Y-%m-%dT%H-%M-%S"), 1
    while True:
        path = output / TRASH / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def _exchange(new: Path, path: Path) -> Path | None:
    """Give a file the name `path`, and return what had it under another name; None if nothing had.

    On Linux nobody can save a file in between; elsewhere what is saved between two system calls is lost.
    """
    while True:
        try:
            if not _rename(new, path, _NOREPLACE):
                break
        except FileExistsError:
            if path.is_dir() and not path.is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path)) from None
            try:
                if not _rename(new, path, _EXCHANGE):
                    break
            except FileNotFoundError:
                continue  # somebody removed it
            return new
        return None
    old = None
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink()):
        path.rename(old := temporary_path(path))
    new.replace(path)
    return old


_NOREPLACE, _EXCHANGE, _CURRENT_FOLDER = 1, 2, -100


@cache
def _renameat2() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        found = ctypes.CDLL(None, use_errno=True).renameat2
        found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        return found
    return None


def _rename(old: Path, new: Path, how: int) -> bool:
    """Rename a file as no function of Python does. Return False where the system or the file system cannot. Raise OSError."""
    call = _renameat2()
    if call is None:
        return False
    sys.audit("os.rename", os.fspath(old), os.fspath(new), -1, -1)
    if call(_CURRENT_FOLDER, os.fsencode(old), _CURRENT_FOLDER, os.fsencode(new), how) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(new))


def _status(path: Path) -> object:
    """Return what changes if a file is saved: None if it is absent."""
    with suppress(OSError):
        status = path.lstat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def discard(files: Sequence[StagedFile]) -> None:
    for file in files:
        file.discard()


@contextmanager
def one_image(ref: ImageRef, staged: Sequence[StagedFile]) -> Iterator[None]:
    """Discard staged files if the block raises. Raise ImageError for an OutputError that concerns one file alone."""
    try:
        yield
    except BaseException as error:
        discard(staged)
        if isinstance(error, OutputError) and error.only_this:
            raise ImageError(ref.path, error.message, error.hint) from error
        raise


def digest_of(path: Path) -> str:
    """Return the sha256 of a regular file in hex; "" if it is absent, or not a regular file."""
    try:
        return content_digest(path) if stat.S_ISREG(path.lstat().st_mode) else ""
    except OSError:
        return ""
