"""Read files behind URLs through fsspec.

Credentials come from the environment, as for other tools of each service.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tipsseg.address import is_web, url_of
from tipsseg.errors import InputError
from tipsseg.images.containers import Stamp
from tipsseg.images.remote import Scheme, version_of

#: Seconds before the second attempt.
PAUSE = 2.0

#: Keys of fsspec's file details that identify a version, in order of preference.
_VERSIONS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "blob_id", "LastModified", "Last-Modified", "last_modified", "updated",
    "mtime", "created",
)  # fmt: skip


class FsspecFiles(Scheme):
    """The files that fsspec reads by a scheme."""

    def __init__(self, name: str) -> None:
        try:
            import fsspec

            options: dict[str, Any] = {}
            if name in ("http", "https"):
                import aiohttp

                # The default is five minutes for a whole file.
                timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
                options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
            self._files = fsspec.filesystem(name, **options)
        except ImportError as error:
            raise InputError(
                f"{name}:// requires {error.name or 'another package'}", "Install it: pip install 'tipsseg[remote]'"
            ) from error

    def look(self, address: Path) -> Stamp | None:
        url = url_of(address)
        try:
            details = _ask(self._files.info, url)
        except FileNotFoundError:
            if not is_web(address):
                raise
            details = _ask(self._files.info, url + "/")  # a Path lost the slash at the end
        if details.get("type") == "directory" or (is_web(address) and details.get("mimetype") == "text/html"):
            return None
        return _stamp(details)

    def stamp(self, file: Path) -> Stamp:
        details = _ask(self._files.info, url_of(file))
        if details.get("type") == "directory":
            raise IsADirectoryError("a folder, not a file")
        return _stamp(details)

    def list(self, folder: Path) -> Iterator[tuple[str, Stamp | None]]:
        url = url_of(folder)
        top = self._files._strip_protocol(url).rstrip("/")
        found = _ask(self._files.find, url + "/" if is_web(folder) else url, detail=True)
        for key, details in sorted(found.items()):
            name = key.removeprefix(top).lstrip("/")
            if name and details.get("type") != "directory":
                yield name, _stamp(details) if _version(details) else None

    def fetch(self, address: Path, file: Path) -> None:
        _ask(self._files.get_file, url_of(address), str(file))


def _stamp(details: Mapping[str, Any]) -> Stamp:
    # Without a version, the stamps of two runs differ, so they compare the content.
    return version_of(_version(details) or f"{time.time_ns()}", details.get("size"))


def _version(details: Mapping[str, Any]) -> str:
    return next((str(details[key]) for key in _VERSIONS if details.get(key)), "")


def _ask(service: Callable[..., Any], *arguments: object, **options: object) -> Any:
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
