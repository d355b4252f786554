"""What huggingface_hub, its HTTP library and the disk raise, as one DownloadError that says what to do.

The errors of the HTTP library come through, and which library that is (requests, httpx, httpx2) depends on the version
of huggingface_hub. tipsseg depends on none of them, so their types are told by name.
"""

from __future__ import annotations

import errno
from pathlib import Path

from tipsseg.errors import DownloadError

_TRANSIENT_STATUS = (429, 500, 502, 503, 504)
_CHECK_NETWORK = "Check the network, HF_ENDPOINT and the proxy settings."
_CHECK_LOCK = "Check weights.lock, or update tipsseg."


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help: the hub is busy or down, the connection broke, or another process got there first."""
    # FileExistsError: huggingface_hub links a file into the snapshot without looking whether somebody just did.
    return _status(error) in _TRANSIENT_STATUS or _is_broken_off(error) or isinstance(error, FileExistsError)


def is_expected(error: BaseException) -> bool:
    """Whether this is an error of the hub, the network or the disk, and not a bug."""
    from huggingface_hub.errors import EntryNotFoundError

    return isinstance(error, OSError | EntryNotFoundError) or _is_a(error, "HTTPError", "InvalidURL", "StreamError")


def download_error(
    error: BaseException, *, model: str, repository: str, revision: str, file: str, storage: Path, in_cache: bool
) -> DownloadError:
    """The error to raise for one that `is_expected`.

    `storage` is the repository's folder in the cache; `in_cache` tells whether the file is there.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # it wraps what went wrong
    reason, hint = (
        _offline(error, model, storage, in_cache=in_cache)
        or _refused(error, repository, revision)
        or _bad_status(error)
        or _unreachable(error)
        or _disk(error)
        or (
            f"the transfer was broken off ({_first_line(error)})",
            "Run the command again; it goes on where it stopped.",
        )
    )
    return DownloadError(repository, revision, file, reason, hint)


def _offline(error: BaseException, model: str, storage: Path, *, in_cache: bool) -> tuple[str, str] | None:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if not isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return None
    where = "" if in_cache else f" and the file is not in the cache at {storage}"
    return (
        f"offline mode is on{where}",
        f"Unset HF_HUB_OFFLINE, or run `tipsseg weights download {model}` on a machine with network and copy its cache.",
    )


def _refused(error: BaseException, repository: str, revision: str) -> tuple[str, str] | None:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = _endpoint()
    if isinstance(error, GatedRepoError):
        return (
            "the repository is gated and access was not granted",
            f"Ask for access at {endpoint}/{repository}, then set HF_TOKEN to a token of that account.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{endpoint} has no such repository, or does not show it to this account",
            "For a private repository set HF_TOKEN to a token that may read it; an expired token must be replaced.",
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the pinned revision {revision} does not exist on the hub", _CHECK_LOCK
    if isinstance(error, EntryNotFoundError):
        return f"{endpoint} has no such file in that revision", _CHECK_LOCK
    return None


def _bad_status(error: BaseException) -> tuple[str, str] | None:
    status = _status(error)
    if status is None:
        return None
    hints = {
        401: "Set HF_TOKEN to a token that may read this repository; an expired token must be replaced.",
        403: "Set HF_TOKEN to a token that may read this repository.",
        404: f"{_CHECK_LOCK} If HF_ENDPOINT is set, check that it is a hub.",
        429: "Too many requests: wait some minutes; with HF_TOKEN set more are allowed.",
    }
    return f"{_endpoint()} answered with HTTP {status}", hints.get(status, "Try again later; what has arrived is kept.")


def _unreachable(error: BaseException) -> tuple[str, str] | None:
    text = _first_line(error)
    if _is_a(error, "Timeout", "TimeoutException", "TimeoutError"):
        return (
            f"{_endpoint()} did not answer in time ({text})",
            f"{_CHECK_NETWORK} HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the seconds to wait.",
        )
    names = ("ConnectError", "ConnectionError", "ProxyError", "InvalidURL", "MissingSchema", "UnsupportedProtocol")
    if _is_a(error, *names) and not _is_broken_off(error):
        return f"cannot reach {_endpoint()} ({text})", _CHECK_NETWORK
    return None


def _disk(error: BaseException) -> tuple[str, str] | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full ({_first_line(error)})",
            "Make room, or set HF_HOME to a folder on a larger disk; what has arrived is kept.",
        )
    return (
        f"the cache cannot be used ({_first_line(error)})",
        "Check the permissions of the cache folder, or set HF_HOME to another.",
    )


def _status(error: BaseException) -> int | None:
    from huggingface_hub.errors import HfHubHTTPError

    # `response` may be None in older versions.
    return getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None


def _is_a(error: BaseException, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _is_broken_off(error: BaseException) -> bool:
    # requests may call a body that ends early a ConnectionError, as it does a refused connection; only the text tells.
    return _is_a(error, "ReadError", "RemoteProtocolError", "ChunkedEncodingError") or "IncompleteRead" in str(error)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
