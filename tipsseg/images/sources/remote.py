"""Fetch images by URL through fsspec, into a bounded folder of temporary files.

Credentials come from the environment, as for other tools of each service.
Messages never quote the text of a service's error: it may contain a signed URL.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tipsseg.address import URL_SCHEMES, is_url, url_of
from tipsseg.errors import InputError
from tipsseg.images.sources.address import is_web, suffix_of
from tipsseg.images.sources.container import Stamp
from tipsseg.util.files import is_alive

#: Bytes of fetched files that are kept for a second use. Files in use are kept beyond it.
KEPT_BYTES = 4 << 30

#: Files that are fetched at a time.
_AT_ONCE = 16

#: Seconds before each retry, with up to half as much again at random.
DELAYS = (0.5, 2.0, 8.0)

_CONNECT_SECONDS, _READ_SECONDS = 20, 60

#: Keys of fsspec's file details that identify a version, in order of preference.
_VERSIONS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "blob_id", "LastModified", "Last-Modified", "last_modified", "updated",
    "mtime", "created",
)  # fmt: skip

#: HTTP statuses that a retry may change.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Beginning of the names of folders for fetched files, before the number of the process.
_PREFIX = "tipsseg-fetched-"

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")

_Result = TypeVar("_Result")


class IncompleteError(OSError):
    """A file has another size than the service said."""


def check_address(address: Path) -> None:
    """Check an address that a user gave, and forget which version of it was read before.

    Raise InputError for a URL with an unknown scheme, or if the package that reads its scheme is not installed.
    """
    if is_url(address):
        _filesystem(str(address).split(":")[0])
        _STAMPS.pop(str(address), None)  # a new call of the library looks at the file again
        try:
            urlsplit(url_of(address)).port  # noqa: B018  it raises
        except ValueError:
            raise InputError(
                "an invalid URL", "Escape special characters in its user and password: %2F for /."
            ) from None
    elif found := _SCHEME.match(str(address)):
        schemes = ", ".join(f"{scheme}://" for scheme in URL_SCHEMES)
        raise InputError(f"{found[1]}:// URLs are not supported", f"Download the file. Supported: {schemes}.")


def is_remote_folder(path: Path) -> bool:
    """Return True for a folder, False for a file. Raise OSError if it is neither, or cannot be reached."""
    url, files = url_of(path), _files(path)
    try:
        details = _retrying(path, lambda: files.info(url))
    except FileNotFoundError:
        if is_web(path):  # a Path lost the slash at the end
            details = _retrying(path, lambda: files.info(url + "/"))
        elif not _retrying(path, lambda: files.isdir(url)):
            raise
        else:
            return True
    if details.get("type") == "directory" or (is_web(path) and details.get("mimetype") == "text/html"):
        return True
    _note(path, details)
    return False


def list_folder(path: Path) -> Iterator[str]:
    """Yield the names of the files in a folder and its sub-folders, sorted. Raise OSError if it cannot be listed."""
    files, url = _files(path), url_of(path)
    top = files._strip_protocol(url).rstrip("/")
    found = _retrying(path, lambda: files.find(url + "/" if is_web(path) else url, detail=True))
    for key, details in sorted(found.items()):
        name = key.removeprefix(top).lstrip("/")
        if name and details.get("type") != "directory":
            if _version(details):
                _note(path / name, details)
            else:  # asked for when the file is read
                _STAMPS.pop(str(path / name), None)
            yield name


def remote_stamp(path: Path) -> Stamp:
    """Return the version of a file. Raise OSError if it cannot be reached."""
    known = _STAMPS.get(str(path))
    if known is not None:
        return known
    files = _files(path)
    details = _retrying(path, lambda: files.info(url_of(path)))
    if details.get("type") == "directory":
        raise IsADirectoryError("a folder, not a file")
    return _note(path, details)


#: Versions from listings, by address: the files of a run are not asked for one by one.
_STAMPS: dict[str, Stamp] = {}


def _note(path: Path, details: Mapping[str, Any]) -> Stamp:
    # Without a version, the stamps of two runs differ, so they compare the content.
    text = _version(details) or f"{time.time_ns()}"
    size = details.get("size")
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
    noted = _STAMPS[str(path)] = Stamp(size if isinstance(size, int) else None, number)
    return noted


class FileCache:
    """Fetched files. All methods are thread-safe; a version of a file is fetched once, whoever asks for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may call `release` anywhere
        self._slots = threading.Semaphore(_AT_ONCE)
        self._folder = ""
        self._files: OrderedDict[str, _Fetched] = OrderedDict()
        self._bytes = self._number = 0

    def begin(self, path: Path) -> _Fetched:
        """Begin to fetch a file if needed, and keep it until `release`."""
        key = str(path)
        with self._lock:
            file = self._files.get(key)
            if file is not None and not file.users and file.stamp != _STAMPS.get(key):
                self._drop(key)  # another version, or nobody looked at its version since
                file = None
            if file is None:
                if not self._folder:
                    self._folder = _temporary_folder()
                    weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
                self._number += 1
                place = Path(self._folder, f"{self._number}{suffix_of(path)}")
                file = self._files[key] = _Fetched(place)
                # A daemon, so that a server that never ends its answer does not keep the process from ending.
                threading.Thread(target=self._fetch, args=(path, file), name="fetch", daemon=True).start()
            file.users += 1
            self._files.move_to_end(key)
            return file

    def hold(self, path: Path) -> Path:
        """Return the local copy of a file, and keep it until `release`. Raise OSError if it cannot be fetched."""
        return self.begin(path).result.result()

    def release(self, path: Path) -> None:
        """End a use of a file. Failed fetches are forgotten, so that the next use tries again."""
        key = str(path)
        with self._lock:
            file = self._files[key]
            file.users -= 1
            if not file.users and file.result.done() and file.result.exception() is not None:
                self._drop(key)
            unused = (key for key, file in tuple(self._files.items()) if not file.users)
            while self._bytes > KEPT_BYTES and (oldest := next(unused, None)) is not None:
                self._drop(oldest)

    def abandon(self, path: Path) -> None:
        """End the waiting for a file: `hold` raises OSError if it is not fetched yet."""
        with self._lock:
            if (file := self._files.get(str(path))) is not None:
                file.settle(OSError("given up"))

    def _fetch(self, path: Path, file: _Fetched) -> None:
        try:
            with self._slots:
                _fetch(path, file.place)
            with self._lock:
                file.stamp = _STAMPS.get(str(path))
                file.bytes = file.place.stat().st_size
                if file.settle(file.place) and self._files.get(str(path)) is file:
                    self._bytes += file.bytes
                    return
        except BaseException as error:
            file.settle(error)
        file.place.unlink(missing_ok=True)

    def _drop(self, key: str) -> None:
        file = self._files.pop(key)
        if file.result.done() and file.result.exception() is None:
            self._bytes -= file.bytes
            file.place.unlink(missing_ok=True)


class _Fetched:
    """A file that is fetched, or about to be.

    Attributes:
        place: Its local copy.
        result: The local copy once it is complete, or the error.
        users: The number of uses that have not ended.
        bytes: Its size.
        stamp: Its version.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.result: Future[Path] = Future()
        self.users = self.bytes = 0
        self.stamp: Stamp | None = None

    def settle(self, result: Path | BaseException) -> bool:
        """Set the result. Return False if there is one already, because the file was abandoned."""
        try:
            if isinstance(result, Path):
                self.result.set_result(result)
            else:
                self.result.set_exception(result)
        except InvalidStateError:
            return False
        return True


def _temporary_folder() -> str:
    """Return a new temporary folder, and remove those of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        process = folder.name.removeprefix(_PREFIX).split("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")


def _fetch(path: Path, place: Path) -> None:
    """Fetch a file, after its version is noted. Raise OSError if that fails."""
    files, url = _files(path), url_of(path)
    remote_stamp(path)

    def attempt() -> None:
        files.get_file(url, str(place))
        known = _STAMPS.get(str(path))
        if known is not None and known.size not in (None, place.stat().st_size):
            _note(path, files.info(url))  # it may have changed since it was listed
            raise IncompleteError("the file arrived incomplete, or changed meanwhile")

    _retrying(path, attempt)


def _retrying(path: Path, call: Callable[[], _Result]) -> _Result:
    """Call, and again after errors that may pass. Raise OSError with a reason in plain words.

    For a while after a server could not be reached, its files are tried once each.
    """
    server = "/".join(path.parts[:2])
    is_down = time.monotonic() < _DOWN_UNTIL.get(server, 0)
    for delay in (None,) if is_down else (*DELAYS, None):
        try:
            return call()
        except Exception as error:  # each service raises exceptions of its own
            reason, passing = _explain(error)
            if passing and delay is not None:
                time.sleep(delay * random.uniform(1, 1.5))
                continue
            if isinstance(reason, ConnectionError):
                _DOWN_UNTIL[server] = time.monotonic() + _DOWN_SECONDS
            raise reason from None  # the original may quote a signed URL
    raise AssertionError


#: Times until which servers are tried once per file, and their duration in seconds.
_DOWN_UNTIL: dict[str, float] = {}
_DOWN_SECONDS = 60.0


def _explain(error: Exception) -> tuple[OSError, bool]:
    """Return the error to raise, and True if a retry may help."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec raises it for any failure to reach a web server
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError("no such file at this URL"), False
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in kind:
        return PermissionError("access denied; check the credentials of the service"), False
    if isinstance(error, IncompleteError):
        return error, True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EISDIR):
        return OSError(error.errno, f"{os.strerror(error.errno)}, for the temporary copy"), False
    if isinstance(status, int):
        return OSError(f"cannot be fetched (HTTP status {status})"), status in _PASSING
    return ConnectionError(f"cannot be fetched ({kind})"), True


def _version(details: Mapping[str, Any]) -> str:
    return next((str(details[key]) for key in _VERSIONS if details.get(key)), "")


def _files(path: Path) -> Any:
    return _filesystem(path.parts[0].removesuffix(":"))


@cache
def _filesystem(scheme: str) -> Any:
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        elif scheme == "s3":
            options = {"config_kwargs": {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}}
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs {error.name or 'another package'}", "Install it: pip install 'tipsseg[remote]'"
        ) from error
