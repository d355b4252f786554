"""Errors of huggingface_hub, of its HTTP library and of the disk, turned into one DownloadError that says what to do.

huggingface_hub lets errors of its HTTP library through, and its version decides which library that is (httpx, httpx2). tipsseg
depends on neither. It takes their base class from huggingface_hub, and finds the cause in the errors of Python behind them.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from tipsseg.errors import DownloadError
from tipsseg.util.printable import first_line

_CHECK_NETWORK = "Check the network, HF_ENDPOINT and the proxy settings."
_CHECK_LOCK = "Check weights.lock, or update tipsseg."


def expected() -> tuple[type[Exception], ...]:
    """The errors that the hub, the network and the disk may cause inside huggingface_hub; any other error is a bug.

    Its Xet transfer raises RuntimeError; an answer of a server that is no hub causes ValueError.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http_error: type[Exception] = HfHubHTTPError.__bases__[0]  # of the HTTP library
    return OSError, RuntimeError, ValueError, http_error


def check_endpoint(repository: str, revision: str, file: str) -> None:
    """Raise DownloadError where HF_ENDPOINT is no web address."""
    endpoint = _endpoint()
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reason = f"cannot reach {endpoint!r}: it is no address that begins with https://"
        raise DownloadError(repository, revision, file, reason, "Check HF_ENDPOINT.")


def download_error(
    error: Exception, *, model: str, repository: str, revision: str, file: str, in_cache: bool
) -> DownloadError:
    """The DownloadError for an `expected` error that occurred while a file of a model was fetched.

    Args:
        error: The error.
        model: The id of the model.
        repository: Its repository.
        revision: Its pinned revision.
        file: The name of the file.
        in_cache: The file is in the cache nevertheless.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # it wraps what went wrong
    reason, hint = (
        _offline(error, model, in_cache=in_cache)
        or _refused(error, repository, revision)
        or _bad_status(error)
        or _disk(error)
        or _unreachable(error, model)
        or (f"the transfer failed ({first_line(error)})", "Run the command again.")
    )
    return DownloadError(repository, revision, file, reason, hint)


def _offline(error: Exception, model: str, *, in_cache: bool) -> tuple[str, str] | None:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if not isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return None
    where = "" if in_cache else f" and the file is not in the cache at {_cache()}"
    return f"offline mode is on{where}", f"Unset HF_HUB_OFFLINE. {_without_network(model)}"


def _refused(error: Exception, repository: str, revision: str) -> tuple[str, str] | None:
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


def _bad_status(error: Exception) -> tuple[str, str] | None:
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return None
    status = error.response.status_code
    hints = {
        401: "Set HF_TOKEN to a token that may read this repository; an expired token must be replaced.",
        403: "Set HF_TOKEN to a token that may read this repository.",
        404: f"{_CHECK_LOCK} If HF_ENDPOINT is set, check that it is a hub.",
        429: "Too many requests: wait some minutes; with HF_TOKEN set more are allowed.",
    }
    return f"{_endpoint()} answered with HTTP {status}", hints.get(status, "Run the command again later.")


def _disk(error: Exception) -> tuple[str, str] | None:
    of_network = isinstance(error, ConnectionError | TimeoutError) or _is_no_connection(error)
    if not isinstance(error, OSError) or of_network or error.errno is None:
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full ({first_line(error)})",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )
    return (
        f"the cache cannot be used ({first_line(error)})",
        "Check the permissions of the cache folder, or set HF_HOME to another.",
    )


def _unreachable(error: Exception, model: str) -> tuple[str, str] | None:
    causes = tuple(_causes(error))
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return (
            f"{_endpoint()} did not answer in time ({first_line(error)})",
            f"{_CHECK_NETWORK} HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the seconds to wait. "
            f"{_without_network(model)}",
        )
    if any(_is_no_connection(cause) for cause in causes):
        return f"cannot reach {_endpoint()} ({first_line(error)})", f"{_CHECK_NETWORK} {_without_network(model)}"
    return None


def _is_no_connection(error: BaseException) -> bool:
    """Whether there was no connection at all: an unknown name, no answer, a certificate that is not trusted."""
    unreachable = isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return unreachable or isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLError)


def _without_network(model: str) -> str:
    return (
        "Without network: try argument `model`=tiny, which needs no download, or run "
        f"`tipsseg weights download {model}` on a machine with network and copy its cache to {_cache()}."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
