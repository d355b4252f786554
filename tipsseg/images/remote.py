"""Fetch images by URL into a bounded folder of temporary files. Plugins know the schemes of URLs.

Messages never quote the text of a service's error: it may contain a signed URL.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tipsseg.address import URL_SCHEMES, is_url, suffix_of, url_of
from tipsseg.errors import InputError
from tipsseg.images.containers import Stamp
from tipsseg.plugins import load_plugin
from tipsseg.util.files import is_alive

#: Fetched files that are kept for a second use, and their bytes. Files in use are kept beyond it.
KEPT_FILES, KEPT_BYTES = 256, 4 << 30

#: Files that are fetched at a time.
_AT_ONCE = 16

#: Beginning of the names of folders for fetched files, before the number of the process.
_PREFIX = "tipsseg-fetched-"

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


class Scheme(Protocol):
    """Read what is behind the URLs of a scheme. All methods are thread-safe, and raise OSError with a reason in plain words.

    A plugin brings a function from the name of the scheme, such as "s3". It raises InputError if a package is missing.
    """

    def look(self, address: Path) -> Stamp | None:
        """Return the version of a file; None for a folder."""

    def stamp(self, file: Path) -> Stamp:
        """Return the version of a file. Raise IsADirectoryError for a folder."""

    def list(self, folder: Path) -> Iterator[tuple[str, Stamp | None]]:
        """Yield the names of the files in a folder and its sub-folders, sorted, each with its version if a listing tells it."""

    def fetch(self, address: Path, file: Path) -> None:
        """Copy a file to this machine."""


@cache
def _scheme(name: str) -> Scheme:
    scheme: Scheme = load_plugin("scheme", name)(name)
    return scheme


def _of(address: Path) -> Scheme:
    return _scheme(address.parts[0].removesuffix(":"))


def version_of(text: str, size: object) -> Stamp:
    """Return the version of a file from a text that identifies it, such as an ETag, and its size; None if that is unknown."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
    return Stamp(size if isinstance(size, int) else None, number)


def check_address(address: Path) -> None:
    """Check an address that a user gave, and forget which version of it was read before.

    Raise InputError for a URL with an unknown scheme, or if the package that reads its scheme is not installed.
    """
    if is_url(address):
        _of(address)
        _STAMPS.pop(str(address), None)  # a new call of the library looks at the file again
        try:
            urlsplit(url_of(address)).port  # noqa: B018  it raises
        except ValueError:
            raise InputError(
                "not a valid URL", "Escape special characters in its user and password: %2F for /."
            ) from None
    elif found := _SCHEME.match(str(address)):
        schemes = ", ".join(f"{scheme}://" for scheme in URL_SCHEMES)
        raise InputError(f"{found[1]}:// URLs are not supported", f"Download the file. Supported: {schemes}.")


#: Versions from listings, by address: the files of a run are not requested one by one.
_STAMPS: dict[str, Stamp] = {}


def is_remote_folder(path: Path) -> bool:
    """Return True for a folder, False for a file. Raise OSError if it is neither, or cannot be reached."""
    stamp = _of(path).look(path)
    if stamp is not None:
        _STAMPS[str(path)] = stamp
    return stamp is None


def list_folder(path: Path) -> Iterator[str]:
    """Yield the names of the files in a folder and its sub-folders, sorted. Raise OSError if it cannot be listed."""
    for name, stamp in _of(path).list(path):
        if stamp is None:  # it is requested when the file is read
            _STAMPS.pop(str(path / name), None)
        else:
            _STAMPS[str(path / name)] = stamp
        yield name


def remote_stamp(path: Path) -> Stamp:
    """Return the version of a file. Raise OSError if it cannot be reached."""
    if str(path) not in _STAMPS:
        _STAMPS[str(path)] = _of(path).stamp(path)
    return _STAMPS[str(path)]


# ---- fetching ----


class Copy:
    """A fetched file, removed once nobody refers to this object.

    Attributes:
        path: The file.
        stamp: Its version.
        size: Its size in bytes.
    """

    def __init__(self, address: Path, stamp: Stamp) -> None:
        handle, name = tempfile.mkstemp(suffix_of(address), dir=_folder())
        os.close(handle)
        self.path, self.stamp, self.size = Path(name), stamp, 0
        weakref.finalize(self, self.path.unlink, missing_ok=True)


_POOL = ThreadPoolExecutor(_AT_ONCE, "fetch")
_lock = threading.Lock()
_fetched: OrderedDict[str, Future[Copy]] = OrderedDict()


def begin_fetch(path: Path) -> Future[Copy]:
    """Begin to fetch a file, unless this version of it was fetched lately. The result raises OSError if that fails."""
    key = str(path)
    with _lock:
        file = _fetched.get(key)
        copy = None if file is None else _copy_of(file)
        if file is None or (file.done() and (copy is None or copy.stamp != _STAMPS.get(key))):
            file = _fetched[key] = _POOL.submit(_fetch, path)
        _fetched.move_to_end(key)
        while (
            len(_fetched) > KEPT_FILES
            or sum(copy.size for copy in map(_copy_of, _fetched.values()) if copy) > KEPT_BYTES
        ):
            _fetched.popitem(last=False)
        return file


def _copy_of(file: Future[Copy]) -> Copy | None:
    return file.result() if file.done() and file.exception() is None else None


def _fetch(path: Path) -> Copy:
    for _ in range(2):
        copy = Copy(path, remote_stamp(path))
        try:
            _of(path).fetch(path, copy.path)
        except OSError:
            copy.path.unlink(missing_ok=True)  # now: whoever keeps the error keeps this object
            raise
        copy.size = copy.path.stat().st_size
        if copy.stamp.size in (None, copy.size):
            return copy
        _STAMPS.pop(str(path), None)  # it may have changed since it was listed
    raise OSError("the file arrived incomplete, or changed meanwhile")


@cache
def _folder() -> str:
    """Return a temporary folder of this process, and remove the folders of killed processes."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        process = left.name.removeprefix(_PREFIX).split("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
