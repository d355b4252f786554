"""Put, copy and remove the files of an output folder by one rule.

A file is replaced or removed only if it has the content that tipsseg recorded for it. Files of a person or of another program stay.
Files are written under temporary names, and compared again just before they are renamed. No link is followed out of the folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tipsseg.errors import ImageError, OutputError
from tipsseg.images.access import identify, open_source
from tipsseg.run.entry import ROWS, FileRow
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import (
    actual_path,
    atomic_path,
    content_digest,
    copy_file,
    output_error,
    remove_file,
    staged_path,
    stamp,
)

#: The hint for a file that is in the way.
MOVE = "Move the file away, or choose another output folder with argument `output`."
_OUTSIDE = "Put a folder in the place of the link, or write into another folder."

#: The state of a file: absent, as tipsseg wrote it, taken in by `tipsseg correct`, changed since, or of another program.
Look = Literal["gone", "ours", "taken", "edited", "foreign"]

#: A content, its pieces, or a function that writes it to a path.
Content = bytes | Iterable[bytes] | Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file that still has another name.

    Attributes:
        temporary: Its path.
        row: Its record once it is in place.
        precious: True for a file of its own, which is moved; False for a temporary one.
        content: The sha256 of its content if a person changed it, so that it differs from `row`.
    """

    temporary: Path
    row: FileRow
    precious: bool = False
    content: str | None = None

    def discard(self) -> None:
        """Remove a temporary file, unless it is in place by now."""
        if not self.precious:
            with suppress(OSError):
                self.temporary.unlink()


class Files:
    """The files below an output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._real = ""
        self._seen: dict[str, object] = {}  # the files that may be replaced, as they were when that was decided

    def path(self, place: str) -> Path:
        return actual_path(self.output, place)

    def place(self, path: Path) -> str:
        return printable_path(path.relative_to(self.output))

    def look(self, row: FileRow | None, place: str = "") -> Look:
        """Compare the file at a place with its record; a file of the recorded size and time counts as ours."""
        path = self.path(row.place if row else place)
        try:
            status = path.lstat()
        except OSError:  # absent or out of reach: writing reports the reason
            return "gone"
        if row is None:
            return "foreign"
        if row.pending is None and (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns):
            return "ours"
        digest = digest_of(path)  # "" if it is not a regular file
        if digest in (row.digest, row.pending):
            return "ours"
        return "taken" if row.taken == digest else "foreign" if row.digest is None else "edited"

    def stage(self, name: str, path: Path, data: Content, shows: str = "") -> StagedFile:
        """Write a file under a temporary name in its folder. Safe in any thread or process. Raise OutputError if that fails."""
        self.refuse_outside(path)
        with staged_path(path) as temporary:
            if isinstance(data, bytes):
                temporary.write_bytes(data)
                written = stamp(temporary, hashlib.sha256(data).hexdigest())
            else:
                if callable(data):
                    data(temporary)
                else:
                    with temporary.open("wb") as target:
                        target.writelines(data)
                written = stamp(temporary)
        row = FileRow(place=self.place(path), name=name, digest=None, shows=shows)
        return StagedFile(temporary=temporary, row=row.stamped(written))

    def may_put(self, file: StagedFile, row: FileRow | None, *, replace_edited: bool = False) -> bool:
        """Return True if a staged file may replace the one at its place, whose record is `row`. `put` compares again."""
        self._seen[file.row.place] = _status(self.path(file.row.place))
        look = self.look(row, file.row.place)
        if look in ("gone", "ours") or replace_edited:
            return True
        return digest_of(self.path(file.row.place)) == file.row.digest

    def expected(self, file: StagedFile, row: FileRow | None) -> FileRow:
        """Return the record of a file that is about to be replaced: with the content there now, and the coming one."""
        place = file.row.place
        before = row or FileRow(place=place, name=file.row.name, digest=None)
        now = digest_of(self.path(place)) if before.pending or row is None else before.digest
        return replace(before, digest=now or before.digest, pending=file.content or file.row.digest)

    def put(self, file: StagedFile) -> bool:
        """Give a staged file its name, unless the file at its place changed since `may_put`. Raise OutputError if that fails."""
        path = self.path(file.row.place)
        if self._seen.pop(file.row.place) != _status(path):
            return False
        try:
            file.temporary.replace(path)
        except OSError as error:
            raise output_error(path, error) from error
        return True

    def put_picture(self, ref: ImageRef, name: str, place: Path, row: FileRow | None) -> FileRow | None:
        """Put a copy of an image in place; return None if another file is in the way.

        Raise OutputError if that fails, or a link leads out of the folder.
        """
        self.refuse_outside(place)
        if self.look(row, self.place(place)) not in ("gone", "ours"):
            own = None
            with suppress(OSError, ValueError):  # reported when it is copied
                own = identify(ref.path, any_size=True)[1]
            if digest_of(place) != own:
                return None
        with atomic_path(place) as temporary:
            with open_source(ref.path) as source, temporary.open("wb", buffering=0) as copy:
                copy_file(source, copy)
            return FileRow(place=self.place(place), name=name, digest=None).stamped(stamp(temporary))

    def remove(self, row: FileRow, *, edited: bool = False) -> bool:
        """Remove a file if it is as tipsseg wrote it, or with `edited` as a person changed it. Raise OutputError if that fails.

        Return True if its place is then free.
        """
        if row.digest == ROWS:
            return True
        path = self.path(row.place)
        self.refuse_outside(path)
        look = self.look(row)
        if is_free := look == "ours" or (edited and look == "edited"):
            remove_file(path)
            with suppress(OSError):
                os.removedirs(path.parent)  # only empty folders
        return is_free or look == "gone"

    def refuse_outside(self, path: Path) -> None:
        """Raise OutputError if a link in a path leads out of the folder."""
        self._real = self._real or os.path.realpath(self.output)
        real = os.path.realpath(path.parent)
        if not Path(real).is_relative_to(self._real):
            raise OutputError(path, f"a link leads out of the output folder, to {real}", _OUTSIDE, only_this=True)


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


def _status(path: Path) -> object:
    """Return what changes if a file is saved: None if it is absent."""
    with suppress(OSError):
        status = path.lstat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def digest_of(path: Path) -> str:
    """Return the sha256 of a regular file in hex; "" if it is absent, or not a regular file."""
    try:
        return content_digest(path) if stat.S_ISREG(path.lstat().st_mode) else ""
    except OSError:
        return ""
