"""Turn errors from huggingface_hub, its HTTP library and the disk into a reason and a hint.

huggingface_hub does not catch errors from its HTTP library, which is httpx or httpx2, depending on the version. tipsseg depends on
neither: it gets their base class from huggingface_hub and finds the cause in the exception chain.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from tipsseg.types import ModelSpec
from tipsseg.util.printable import first_line

_CHECK_NETWORK = "Check the network, HF_ENDPOINT and the proxy settings."
_CHECK_LOCK = "Check weights.lock, or update tipsseg."
_FREE_SPACE = "Free some space, or set HF_HOME to a folder on a larger disk."

# Reasons and hints by exception name; the first match in the method resolution order is used.
_REFUSALS = {
    "GatedRepoError": (
        "the repository is gated, and this account has no access",
        "Request access at {endpoint}/{repository}, then set HF_TOKEN to a token of that account.",
    ),
    "RepositoryNotFoundError": (
        "{endpoint} has no such repository, or this account has no access to it",
        "For a private repository, set HF_TOKEN to a token with read access. Replace an expired token.",
    ),
    "RevisionNotFoundError": ("the pinned revision {revision} does not exist on the hub", _CHECK_LOCK),
    "EntryNotFoundError": ("{endpoint} has no such file in that revision", _CHECK_LOCK),
}
_STATUS_HINTS = {
    401: "Set HF_TOKEN to a token with read access to this repository. Replace an expired token.",
    403: "Set HF_TOKEN to a token with read access to this repository.",
    404: f"{_CHECK_LOCK} If HF_ENDPOINT is set, check that it is the address of a hub.",
    429: "Too many requests: wait some minutes. With HF_TOKEN set, the limit is higher.",
}


def expected_errors() -> tuple[type[Exception], ...]:
    """Return the errors that hub, network and disk can cause in huggingface_hub; any other error is a bug.

    Xet transfers raise RuntimeError. A server that is not a hub causes ValueError.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http_error: type[Exception] = HfHubHTTPError.__bases__[0]  # the HTTP library's base exception
    return OSError, RuntimeError, ValueError, http_error


def endpoint_fault() -> str | None:
    """Describe the fault in HF_ENDPOINT; None if it is a web address."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme in ("http", "https") and parts.hostname:
        return None
    return f"cannot reach {constants.ENDPOINT!r}: it must begin with https://"


def explain(error: Exception, model: ModelSpec, *, in_cache: bool) -> tuple[str, str]:
    """Return the reason and the hint for one of `expected_errors`. `in_cache` is True if the file is in the cache."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the actual error
    cache = constants.HF_HUB_CACHE
    without_network = (
        "Without a network: use argument `model`=tiny, which needs no download, or run "
        f"`tipsseg weights download {model.id}` on another machine and copy its cache to {cache}."
    )
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        missing = "" if in_cache else f", and the file is not in the cache at {cache}"
        return f"offline mode is on{missing}", f"Unset HF_HUB_OFFLINE. {without_network}"
    return _http_fault(error, model) or _disk_fault(error) or _connection_fault(error, without_network)


def _http_fault(error: Exception, model: ModelSpec) -> tuple[str, str] | None:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    facts = {"endpoint": constants.ENDPOINT, "repository": model.repository, "revision": model.revision}
    for kind in type(error).__mro__:
        if kind.__name__ in _REFUSALS:
            reason, hint = _REFUSALS[kind.__name__]
            return reason.format(**facts), hint.format(**facts)
    if not isinstance(error, HfHubHTTPError):
        return None
    status = error.response.status_code
    return f"{constants.ENDPOINT} answered with HTTP {status}", _STATUS_HINTS.get(
        status, "Run the command again later."
    )


def _disk_fault(error: Exception) -> tuple[str, str] | None:
    is_network = isinstance(error, ConnectionError | TimeoutError) or _is_unreachable(error)
    if not isinstance(error, OSError) or error.errno is None or is_network:
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({first_line(error)})", _FREE_SPACE
    hint = "Check the permissions of the cache folder, or set HF_HOME to another folder."
    return f"cannot use the cache ({first_line(error)})", hint


def _connection_fault(error: Exception, without_network: str) -> tuple[str, str]:
    from huggingface_hub import constants

    causes, detail = tuple(_causes(error)), first_line(error)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        seconds = "HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the timeouts in seconds."
        reason = f"{constants.ENDPOINT} did not answer in time ({detail})"
        return reason, f"{_CHECK_NETWORK} {seconds} {without_network}"
    if any(_is_unreachable(cause) for cause in causes):
        return f"cannot reach {constants.ENDPOINT} ({detail})", f"{_CHECK_NETWORK} {without_network}"
    return f"the transfer failed ({detail})", "Run the command again."


def _is_unreachable(error: BaseException) -> bool:
    """Return True if no connection was made: unknown host, unreachable host, untrusted certificate."""
    unreachable = isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return unreachable or isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__
