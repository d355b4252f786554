"""Put whole files into a folder, or behind a URL that fsspec writes. Errors are OutputErrors."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tipsseg.address import address_text, as_address, has_scheme, is_web, url_of, without_query
from tipsseg.errors import InputError, OutputError, UsageError
from tipsseg.formats.dataset import DATA_FOLDER, INDEX
from tipsseg.images.remote import ask
from tipsseg.run.files import Files
from tipsseg.run.lock import FolderLock
from tipsseg.util.files import (
    content_digest,
    file_size,
    output_error,
    path_exists,
    read_regular,
    remove_file,
    remove_left,
    temporary_path,
)
from tipsseg.util.text import quote

#: Bytes that are read at a time.
_CHUNK = 1 << 22

_Content = TypeVar("_Content")

_MD5 = re.compile("[0-9a-f]{32}")


class Destination:
    """A folder on this machine. Files have names such as "data/train-00000.tar".

    Attributes:
        address: Its path or URL.
    """

    def __init__(self, address: Path) -> None:
        self.address = address

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if there is none."""
        path = self.address / name
        if not path_exists(path):
            return None
        size = file_size(path)
        return -1 if size is None else size  # a folder has this name

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        return self._open(name, read_regular)

    def digest(self, name: str) -> str | None:
        """Return the sha256 of a file in hex; None if there is none."""
        return self._open(name, content_digest)

    def _open(self, name: str, reader: Callable[[Path], _Content]) -> _Content | None:
        try:
            return reader(self.address / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise output_error(self.address / name, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out during the block, where the place has locks. Remove what killed commands left.

        Raise OutputError if a link leads out of the place.
        """
        Files(self.address).refuse_outside(self.address / DATA_FOLDER / INDEX)
        lock = FolderLock(self.address)
        try:
            remove_left(self.address)
            yield
        finally:
            lock.give_back()

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Yield a temporary path to write, for `put`; after the block it is removed."""
        # Beside the folder of shards and without a suffix: DuckDB would read what a killed process leaves there.
        with _temporary(temporary_path(self.address / "x"), self.address / name) as path:
            yield path

    def put(self, path: Path, name: str) -> None:
        """Put a staged file in place, whole."""
        target = self.address / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        except OSError as error:
            raise output_error(target, error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole."""
        with self.staging(name) as path:
            path.write_bytes(data)
            self.put(path, name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        try:
            return [f"{folder}/{path.name}" for path in (self.address / folder).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise output_error(self.address / folder, error) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        remove_file(self.address / name)


class RemoteDestination(Destination):
    """A folder behind a URL. Files are written on this machine, uploaded, and compared with the upload."""

    def __init__(self, address: Path) -> None:
        super().__init__(address)
        from fsspec.core import url_to_fs

        scheme = address.parts[0].removesuffix(":")
        try:
            self._files, root = url_to_fs(url_of(address))
        except ImportError as error:
            hint = "Install it: pip install 'tipsseg[remote]'" if scheme in ("s3", "gs") else f"{error}."
            raise InputError(f"{scheme}:// requires {error.name or 'another package'}", hint) from error
        except Exception as error:  # each file system of fsspec raises exceptions of its own
            raise UsageError(
                f"{address_text(address)} cannot be opened ({type(error).__name__})",
                "Use a folder, or a URL that fsspec writes, such as s3://.",
            ) from error
        self._root = str(root).rstrip("/")

    def size(self, name: str) -> int | None:
        self._files.invalidate_cache()
        details = self._find(name, self._files.info)
        return None if details is None else int(details.get("size") or 0)

    def read(self, name: str) -> bytes | None:
        return None if self.size(name) is None else bytes(self._ask(name, self._files.cat_file))

    def digest(self, name: str) -> str | None:
        self._files.invalidate_cache()
        digest: str | None = self._find(name, self._digest)
        return digest

    @contextmanager
    def locked(self) -> Iterator[None]:
        remove_left(Path(tempfile.gettempdir()))
        yield

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        path = temporary_path(Path(tempfile.gettempdir(), Path(name).name))
        with _temporary(path, path):
            yield path

    def put(self, path: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        with suppress(NotImplementedError, FileExistsError):  # a bucket has no folders
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._ask(name, lambda _: self._files.put_file(str(path), target))
        if not self._arrived(path, name):
            self.remove(name)  # the next command would take it for another's
            raise OutputError(self.address / name, "the upload differs from the file", "Run the same command again.")

    def _arrived(self, path: Path, name: str) -> bool:
        """Return True if a file arrived: by the MD5 that the service states, or else read back."""
        self._files.invalidate_cache()
        details = self._ask(name, self._files.info)
        if details.get("size") != path.stat().st_size:
            return False
        with path.open("rb") as file:
            tag = str(details.get("ETag") or details.get("md5") or "").strip('"')
            if _MD5.fullmatch(tag) and tag == hashlib.file_digest(file, "md5").hexdigest():
                return True
            file.seek(0)
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        return bool(self._ask(name, self._digest) == expected)

    def _digest(self, target: str) -> str:
        digest = hashlib.sha256()
        with self._files.open(target, "rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
        return digest.hexdigest()

    def remove(self, name: str) -> None:
        self._find(name, self._files.rm_file)

    def names(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        found = self._find(folder, lambda target: self._files.ls(target, detail=False)) or []
        return [f"{folder}/{str(name).rstrip('/').rpartition('/')[2]}" for name in found]

    def _find(self, name: str, service: Callable[[str], Any]) -> Any:
        """Call a service for a file; return None if there is none."""
        try:
            return self._ask(name, service)
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _ask(self, name: str, service: Callable[[str], Any]) -> Any:
        try:
            return ask(service, f"{self._root}/{name}", verb="reached")
        except OSError as error:
            raise OutputError(
                self.address / name, str(error), "Run the same command again: whole shards are kept."
            ) from error


@contextmanager
def _temporary(path: Path, target: Path) -> Iterator[Path]:
    """Yield a temporary path, and remove it after the block. Raise OutputError for `target` if the block raises an OSError."""
    try:
        yield path
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with suppress(OSError):  # left, as by a killed command
            path.unlink()


def open_destination(address: str | Path) -> Destination:
    """Return the place at a path or URL. Raise UsageError or InputError if nothing can be written there."""
    if not isinstance(address, str | Path) or not str(address) or "\0" in str(address):
        raise UsageError(f"argument `to`={quote(address)} is not a path", "Pass a folder, or a URL such as s3://.")
    place = as_address(address)
    if not has_scheme(place):
        return Destination(place)
    if place.parts[0] in ("file:", "local:"):
        return Destination(Path("/", *place.parts[1:]))
    if is_web(place) or without_query(str(place)) != str(place):
        what = "a web server" if is_web(place) else "a URL with a query"
        raise UsageError(
            f"argument `to`={place}: files cannot be written to {what}", "Use a folder, or a URL such as s3://."
        )
    if len(place.parts) < 2:
        raise UsageError(f"argument `to`={address}: the URL names no place", "For example: s3://bucket/set.")
    return RemoteDestination(place)
