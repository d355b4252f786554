"""Where corrected labels are: a file, a folder or a zip, all of whose files are looked at before one is read.

Other programs, and other people, wrote them. So nothing is read by a path that leads outside, through a link, or beyond a limit;
of a zip nothing is unpacked but the one file that is read.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from tipsseg.errors import ImageError, InputError
from tipsseg.util.files import RegularFile, is_folder, open_regular, read_regular, reason_of
from tipsseg.util.json_values import parse
from tipsseg.util.record_paths import is_inside

#: Files that a source may have.
FILES_MAX = 2_000_000

#: Bytes of a file that is read whole, unpacked.
BYTES_MAX = 1 << 30

#: Bytes that any zip may unpack to, and how many times its own size a larger one: labels are packed to a fifth, harmful files to a
#: thousandth, and in memory JSON takes up to twenty times the bytes of the file.
_UNPACKED_MAX = 32 << 20
_RATIO_MAX = 50

#: Bytes of a list of labels or images.
LIST_MAX = 64 << 20

#: Bytes of a file that are in memory at a time, where it goes to a file.
_AT_ONCE = 1 << 20

#: What operating systems and version control leave beside the files of people.
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

_HINT = "Give the file, the folder or the zip that the labelling tool exported."


class Source:
    """The files of a file, a folder or a zip. Use as a context manager.

    Attributes:
        path: As it was given.
        names: The files, by their posix paths relative to the folder or to the top of the zip, sorted; of a file its name.
    """

    def __init__(self, path: Path) -> None:
        """List the files. Raises InputError if they cannot be listed, or must not be read."""
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._file: RegularFile | None = None
        self._folder = path if is_folder(path) else path.parent
        if is_folder(path):
            found = list(_walk(path))
        else:
            try:
                self._file = open_regular(path)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: {reason_of(error)}", _HINT) from error
            try:
                found = self._open(self._file)
            except BaseException:
                self.close()
                raise
        self.names = tuple(sorted(found))

    def _open(self, file: RegularFile) -> list[str]:
        """Return the names in a zip, or that of the file."""
        if not zipfile.is_zipfile(file):
            return [self.path.name]
        try:
            self._zip = zipfile.ZipFile(file)
            return list(_members(self.path, self._zip))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise InputError(f"{self.path}: a zip that cannot be read: {error}", "Export it again.") from error

    def shown(self, name: str) -> Path:
        """Return a file as people are told of it."""
        if self._zip is not None:
            return self.path / name  # as if the zip were a folder
        return self._folder / name

    def has(self, name: str) -> bool:
        return name in self._known

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def read(self, name: str, limit: int = BYTES_MAX) -> bytes:
        """Return the bytes of a file. Raises ImageError if it cannot be read, or has more than `limit` bytes."""
        with self._told_of(name):
            if self._zip is not None:
                with self._member(self._zip, name, limit) as member:
                    return member.read()
            self._refuse_link(name)
            return read_regular(self._folder / name, limit)

    def _member(self, archive: zipfile.ZipFile, name: str, limit: int) -> IO[bytes]:
        """Open a file of the zip; it gives no more bytes than the zip says that it has."""
        size = archive.getinfo(name).file_size
        if size > limit:
            raise ImageError(self.shown(name), f"{size:,} bytes, where {limit:,} are the most that is read")
        return archive.open(name)

    @contextmanager
    def _told_of(self, name: str) -> Iterator[None]:
        """Turn what goes wrong with the bytes of a file into an ImageError of it."""
        try:
            yield
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ImageError(self.shown(name), reason_of(error), "Export it again.") from error
        except Exception as error:  # zlib.error, lzma.LZMAError: whatever the ways to pack raise on broken data
            if type(error).__module__ not in ("zlib", "lzma", "_lzma"):
                raise
            raise ImageError(self.shown(name), f"cannot be unpacked: {error}", "Export it again.") from error

    def json(self, name: str) -> Any:
        try:
            return parse(self.read(name))
        except ValueError as error:
            raise ImageError(self.shown(name), f"not JSON: {error}", "Export it again.") from error

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a list that are not blank, each with its number. Raises ImageError."""
        try:
            text = self.read(name, LIST_MAX).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ImageError(self.shown(name), f"not UTF-8: {error}") from error
        yield from ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip())

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give a path at which the file can be read; errors of that path become errors of the file. Raises ImageError."""
        if self._zip is None:
            self._refuse_link(name)
            yield self._folder / name
            return
        folder = Path(tempfile.mkdtemp(prefix="tipsseg-"))
        path = folder / f"file{PurePosixPath(name).suffix}"
        try:
            with self._told_of(name), self._member(self._zip, name, BYTES_MAX) as member, path.open("xb") as file:
                shutil.copyfileobj(member, file, _AT_ONCE)
            yield path
        except ImageError as error:
            raise ImageError(self.shown(name), error.reason, error.hint) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _refuse_link(self, name: str) -> None:
        if (self._folder / name).is_symlink() and is_folder(self.path):
            raise ImageError(self.shown(name), "a link, which may lead anywhere", "Put the file itself there.")

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for each in (self._zip, self._file):
            if each is not None:
                each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _walk(top: Path) -> Iterator[str]:
    """Yield the files below a folder; links to folders are not followed, hidden files and folders are left out."""
    number = 0
    for folder, subfolders, names in os.walk(top, onerror=_refuse_folder):
        subfolders[:] = sorted(name for name in subfolders if not _is_clutter(name))
        relative = Path(folder).relative_to(top)
        for name in names:
            if not _is_clutter(name):
                number += 1
                if number > FILES_MAX:
                    raise InputError(f"{top}: more than {FILES_MAX:,} files", _HINT)
                yield (relative / name).as_posix()


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(
        f"cannot list the folder {error.filename}: {reason_of(error)}", "Check its permissions."
    ) from error


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER


def _members(path: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the files of a zip, by its directory. Raises InputError for what a zip of labels does not have."""
    entries = archive.infolist()
    if len(entries) > FILES_MAX:
        raise InputError(f"{path}: {len(entries):,} files, where {FILES_MAX:,} are the most that is read", _HINT)
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > max(_UNPACKED_MAX, _RATIO_MAX * packed):
        raise InputError(
            f"{path}: {packed:,} bytes that unpack to {size:,}, as labels do not",
            "Nothing was read. If you trust the zip, unpack it yourself and give the folder.",
        )
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename.removesuffix("/")
        what = ""
        if not is_inside(name) or "\\" in name:
            what = "it leads out of the zip, or is no name of a file"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            what = "a link, which may lead anywhere"
        elif entry.flag_bits & 1:
            what = "it is encrypted"
        elif entry.is_dir() or any(map(_is_clutter, name.split("/"))):
            continue
        elif name in seen:
            what = "it is there twice"
        if what:
            raise InputError(f"{path}: {name!r}: {what}", "Nothing was read. Export it again, or unpack it yourself.")
        seen.add(name)
        yield name
