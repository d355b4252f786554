"""Fetch images by URL through fsspec, into a bounded folder of temporary files.

Credentials come from the environment, as for other tools of each service.
Messages never quote the text of a service's error: it may contain a signed URL.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tipsseg.address import URL_SCHEMES, is_url, is_web, suffix_of, url_of
from tipsseg.errors import InputError
from tipsseg.images.containers import Stamp
from tipsseg.util.files import is_alive

#: Fetched files that are kept for a second use, and their bytes. Files in use are kept beyond it.
KEPT_FILES, KEPT_BYTES = 256, 4 << 30

#: Files that are fetched at a time.
_AT_ONCE = 16

#: Seconds before the second attempt.
PAUSE = 2.0

#: Keys of fsspec's file details that identify a version, in order of preference.
_VERSIONS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "blob_id", "LastModified", "Last-Modified", "last_modified", "updated",
    "mtime", "created",
)  # fmt: skip

#: Beginning of the names of folders for fetched files, before the number of the process.
_PREFIX = "tipsseg-fetched-"

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


def check_address(address: Path) -> None:
    """Check an address that a user gave, and forget which version of it was read before.

    Raise InputError for a URL with an unknown scheme, or if the package that reads its scheme is not installed.
    """
    if is_url(address):
        _files(address)
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


# ---- what a service says about its files ----


def is_remote_folder(path: Path) -> bool:
    """Return True for a folder, False for a file. Raise OSError if it is neither, or cannot be reached."""
    files, url = _files(path), url_of(path)
    try:
        details = ask(files.info, url)
    except FileNotFoundError:
        if not is_web(path):
            raise
        details = ask(files.info, url + "/")  # a Path lost the slash at the end
    if details.get("type") == "directory" or (is_web(path) and details.get("mimetype") == "text/html"):
        return True
    _note(path, details)
    return False


def list_folder(path: Path) -> Iterator[str]:
    """Yield the names of the files in a folder and its sub-folders, sorted. Raise OSError if it cannot be listed."""
    files, url = _files(path), url_of(path)
    top = files._strip_protocol(url).rstrip("/")
    found = ask(files.find, url + "/" if is_web(path) else url, detail=True)
    for key, details in sorted(found.items()):
        name = key.removeprefix(top).lstrip("/")
        if name and details.get("type") != "directory":
            _STAMPS.pop(str(path / name), None)
            if _version(details):  # else it is requested when the file is read
                _note(path / name, details)
            yield name


def remote_stamp(path: Path) -> Stamp:
    """Return the version of a file. Raise OSError if it cannot be reached."""
    known = _STAMPS.get(str(path))
    if known is not None:
        return known
    details = ask(_files(path).info, url_of(path))
    if details.get("type") == "directory":
        raise IsADirectoryError("a folder, not a file")
    return _note(path, details)


#: Versions from listings, by address: the files of a run are not requested one by one.
_STAMPS: dict[str, Stamp] = {}


def _note(path: Path, details: Mapping[str, Any]) -> Stamp:
    # Without a version, the stamps of two runs differ, so they compare the content.
    text = _version(details) or f"{time.time_ns()}"
    size = details.get("size")
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
    noted = _STAMPS[str(path)] = Stamp(size if isinstance(size, int) else None, number)
    return noted


def _version(details: Mapping[str, Any]) -> str:
    return next((str(details[key]) for key in _VERSIONS if details.get(key)), "")


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
            ask(_files(path).get_file, url_of(path), str(copy.path))
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


# ---- services ----


def ask(service: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """Call a service, and once more after an error that may pass. Raise OSError with a reason in plain words."""
    for last in (False, True):
        try:
            return service(*arguments, **options)
        except Exception as error:  # each service raises exceptions of its own
            reason = _explain(error)
            if last or not isinstance(reason, ConnectionError):
                raise reason from None  # the original may quote a signed URL
        time.sleep(PAUSE)
    raise AssertionError


def _explain(error: Exception) -> OSError:
    """Return the error to raise: a ConnectionError if another attempt may help."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec raises it for any failure to reach a web server
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError("no such file at this URL")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return PermissionError("access denied; check the credentials of the service")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EISDIR):
        return OSError(error.errno, f"{os.strerror(error.errno)}, for the temporary copy")
    if isinstance(status, int):
        kind = ConnectionError if status >= 500 or status in (408, 425, 429) else OSError
        return kind(f"cannot be fetched (HTTP status {status})")
    return ConnectionError(f"cannot be fetched ({type(error).__name__})")


def _files(path: Path) -> Any:
    return _filesystem(path.parts[0].removesuffix(":"))


@cache
def _filesystem(scheme: str) -> Any:
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp

            # The default is five minutes for a whole file.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// requires {error.name or 'another package'}", "Install it: pip install 'tipsseg[remote]'"
        ) from error
