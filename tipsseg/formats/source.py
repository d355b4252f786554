"""Read corrections from a file, a folder or a zip. All files are listed before any is read.

Sources are untrusted: paths that lead outside, links and oversized files are rejected. Zip members are unpacked one at a time.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from tipsseg.errors import ImageError, InputError
from tipsseg.util.files import describe_error, is_folder, is_inside, open_regular, read_regular
from tipsseg.util.json import parse

#: The maximum number of files in a source.
FILES_MAX = 2_000_000

#: The size limit of a file that is read into memory, in bytes, unpacked.
BYTES_MAX = 1 << 30

#: A zip may unpack to this many bytes, or to this multiple of its own size. Labels compress to a fifth of their size, zip bombs to
#: a thousandth. Parsed JSON takes up to twenty times as much memory as its file.
_UNPACKED_MAX = 32 << 20
_RATIO_MAX = 50

#: The maximum number of files of one kind that are opened to find out their format.
TRIED = 20

#: The size limit of a list of labels or images, in bytes.
LIST_MAX = 64 << 20

#: The number of bytes to copy at a time when a file is unpacked to disk.
_BLOCK = 1 << 20

#: Names of files and folders that operating systems create. They are skipped.
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

#: The file that marks an output folder of tipsseg.
_RUN_FILE = "run.json"

_HINT = "Pass the file, folder or zip that the labelling tool exported."


class Source(ExitStack):
    """The files in a folder or a zip, or a single file. Use as a context manager.

    Attributes:
        path: The path of the file, folder or zip.
        names: The sorted posix paths of all files, relative to the folder or the zip root. For a single file, its name.
    """

    def __init__(self, path: Path) -> None:
        """List the files. Raise InputError if they cannot be listed or are rejected."""
        super().__init__()
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._folder = path if is_folder(path) else path.parent
        try:
            self.names = tuple(sorted(_walk(path) if is_folder(path) else self._names_in_file()))
        except BaseException:
            self.close()
            raise
        self._known = frozenset(self.names)

    def _names_in_file(self) -> Iterator[str]:
        """Yield the names of the files in a zip, or the name of the file itself."""
        try:
            file = self.enter_context(open_regular(self.path))
            if zipfile.is_zipfile(file):
                self._zip = self.enter_context(zipfile.ZipFile(file))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise InputError(f"{self.path}: {describe_error(error)}", _HINT) from error
        yield from [self.path.name] if self._zip is None else _members(self.path, self._zip)

    def display_path(self, name: str) -> Path:
        """Return a file's path for messages."""
        return (self._folder if self._zip is None else self.path) / name  # as if the zip were a folder

    def find_name(self, name: str) -> list[str]:
        """Return the paths of all files with this name, in any folder."""
        return [path for path in self.names if PurePosixPath(path).name == name]

    def find_suffix(self, *suffixes: str) -> list[str]:
        """Return the paths of all files with one of these suffixes, ignoring case."""
        return [path for path in self.names if path.lower().endswith(suffixes)]

    @property
    def is_output(self) -> bool:
        """True for an output folder of tipsseg."""
        return self.has(_RUN_FILE)

    def has(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str, limit: int = BYTES_MAX) -> bytes:
        """Return the bytes of a file. Raise ImageError if it cannot be read, or has more than `limit` bytes."""
        with self._name_errors(name):
            if self._zip is not None:
                with self._member(self._zip, name, limit) as member:
                    return member.read()
            self._refuse_link(name)
            return read_regular(self._folder / name, limit)

    def _member(self, archive: zipfile.ZipFile, name: str, limit: int) -> IO[bytes]:
        """Open a file in the zip. It returns at most as many bytes as the zip's directory states."""
        size = archive.getinfo(name).file_size
        if size > limit:
            raise ImageError(self.display_path(name), f"{size:,} bytes; the limit is {limit:,}")
        return archive.open(name)

    @contextmanager
    def _name_errors(self, name: str) -> Iterator[None]:
        """Turn errors of reading and unpacking into an ImageError with the path of the file."""
        try:
            yield
        except ImageError:
            raise
        except Exception as error:  # decompressors raise nearly anything on damaged data
            raise ImageError(self.display_path(name), describe_error(error), "Export the file again.") from error

    def json(self, name: str) -> Any:
        try:
            return parse(self.read(name))
        except ValueError as error:
            raise ImageError(self.display_path(name), f"not JSON: {error}", "Export the file again.") from error

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the non-blank lines of a text file, with their numbers. Raise ImageError if the file is not UTF-8 text."""
        try:
            text = self.read(name, LIST_MAX).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ImageError(self.display_path(name), f"not UTF-8: {error}") from error
        yield from ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip())

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a path to the file, unpacked if needed. An ImageError in the block gets the file's path in the source."""
        if self._zip is None:
            self._refuse_link(name)
            yield self._folder / name
            return
        with tempfile.TemporaryDirectory(prefix="tipsseg-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, f"file{PurePosixPath(name).suffix}")
            try:
                with (
                    self._name_errors(name),
                    self._member(self._zip, name, BYTES_MAX) as member,
                    path.open("xb") as file,
                ):
                    shutil.copyfileobj(member, file, _BLOCK)
                yield path
            except ImageError as error:
                raise ImageError(self.display_path(name), error.reason, error.hint) from None

    def _refuse_link(self, name: str) -> None:
        if (self._folder / name).is_symlink() and is_folder(self.path):
            where = self.display_path(name)
            raise ImageError(where, "is a link, which may lead anywhere", "Replace it with the file itself.")


def _walk(top: Path) -> Iterator[str]:
    """Yield the files below a folder. Skips hidden files and folders; does not follow links to folders."""
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
        f"cannot list the folder {error.filename}: {describe_error(error)}", "Check its permissions."
    ) from error


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER


def _members(path: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the files that a zip lists. Raise InputError for a zip bomb, and for unsafe or duplicate entries."""
    entries = archive.infolist()
    if len(entries) > FILES_MAX:
        raise InputError(f"{path}: {len(entries):,} files; the limit is {FILES_MAX:,}", _HINT)
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > max(_UNPACKED_MAX, _RATIO_MAX * packed):
        raise InputError(
            f"{path}: {packed:,} bytes would unpack to {size:,} bytes, too many for label files",
            "Nothing was read. If you trust the zip, unpack it and pass the folder.",
        )
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename.removesuffix("/")
        fault = ""
        if not is_inside(name) or "\\" in name:
            fault = "leads out of the zip, or is not a valid file name"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            fault = "is a link, which may lead anywhere"
        elif entry.flag_bits & 1:
            fault = "is encrypted"
        elif entry.is_dir() or any(map(_is_clutter, name.split("/"))):
            continue
        elif name in seen:
            fault = "occurs twice"
        if fault:
            raise InputError(
                f"{path}: {name!r} {fault}", "Nothing was read. Export the zip again, or unpack it yourself."
            )
        seen.add(name)
        yield name
