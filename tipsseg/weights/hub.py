"""Files of a pinned revision out of the Hugging Face hub, into the hub's ordinary cache.

huggingface_hub looks into the cache, transfers files (with Xet where the hub has it) and makes links; it shares its cache with
transformers. This module asks the hub for hashes and sizes before anything is transferred, compares the sizes with the free
disk space, and hashes a file as soon as it is in the cache. A wrong file is removed again, and the program stops.

huggingface_hub 1.20.1 and 2.4.0 were tried, and their own behaviour is left as it is:

* Each process writes a temporary file of its own and renames it when it is whole, so that two processes at once cannot mix their
  bytes even where the file system ignores locks.
* A connection that breaks off is taken up again where it stopped, in steps of 10 MiB, until it broke off six times without one. A
  program that is stopped begins that file again the next time. SIGKILL leaves the temporary file `blobs/*.incomplete`.
* A body that is longer than stated is written to its end, then refused and removed. One without an end is written until the disk
  is full or the program is stopped, and removed then.
* A body may come as slowly as it likes, as long as something comes within HF_HUB_DOWNLOAD_TIMEOUT seconds (10).
* Xet does not compare what it brings with the hash of the file.
* Where the hub answers the request for a body with HTTP 429 and `Retry-After`, 2.4.0 waits as long as that says, be it 27 hours,
  and says so on stderr; 1.20.1 waits some seconds. HTTP 429 to the question for hash and size, which comes first, ends the program.

huggingface_hub is imported inside the functions: it is slow to import, and reads HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE
and the like from the environment at that moment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tipsseg._version import __version__
from tipsseg.errors import DownloadError, IntegrityError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import hub_errors
from tipsseg.weights.digests import Expected, expected_from_name, find_mismatch

_Result = TypeVar("_Result")

#: Seconds to wait before asking again when the hub is down.
_WAITS = (1.0, 2.0)
_DOWN = (500, 502, 503, 504)

_AGAIN = (
    "Run the command again to download it afresh; if this repeats, the hub or a proxy on the way delivers something "
    "else than is pinned."
)
_DISAGREE = (
    "weights.lock and the hub disagree about this revision: if the revision in weights.lock was changed by hand, "
    "remove the size and sha256 of its files and run `tipsseg weights lock`; otherwise do not trust this endpoint."
)


def cached(spec: ModelSpec, name: str) -> Path | None:
    """Find a file of the pinned revision in the hub cache. Uses no network."""
    from huggingface_hub import try_to_load_from_cache

    repository, revision = source(spec)
    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def stated_in_cache(path: Path, size: int | None = None) -> Expected | None:
    """Return the hash that the hub stated for a cached file: the name of the blob that the snapshot links to."""
    return expected_from_name(path.readlink().name, size) if path.is_symlink() else None


def stated_by_hub(spec: ModelSpec, file: LockedFile) -> Expected:
    """Ask the hub for the hash and the size of a file of the pinned revision.

    Raises:
        DownloadError: Where the hub cannot be asked, or states no hash.
        IntegrityError: Where hub and lock contradict each other.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    repository, revision = source(spec)
    if (reason := hub_errors.endpoint_fault()) is not None:
        raise DownloadError(repository, revision, file.name, reason, "Check HF_ENDPOINT.")
    metadata = _from_hub(
        spec,
        file.name,
        lambda: get_hf_file_metadata(
            hf_hub_url(repository, file.name, revision=revision),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            library_name="tipsseg",
            library_version=__version__,
        ),
    )
    stated = expected_from_name(metadata.etag or "", metadata.size)
    if metadata.commit_hash != revision or stated is None:
        answer = (
            f"answered for revision {metadata.commit_hash}"
            if metadata.commit_hash != revision
            else f"states no sha256 for it, but {metadata.etag!r}"
        )
        reason = f"{constants.ENDPOINT} {answer}"
        raise DownloadError(repository, revision, file.name, reason, "Check HF_ENDPOINT and the proxy settings.")
    path = _storage(repository) / "snapshots" / revision / file.name
    if None not in (file.size, stated.size) and file.size != stated.size:
        raise IntegrityError(path, "size", f"{file.size} bytes", f"{stated.size} bytes", _DISAGREE)
    if stated.kind == "sha256" and file.sha256 not in (None, stated.digest):
        raise IntegrityError(path, "sha256", str(file.sha256), stated.digest, _DISAGREE)
    return stated


def download(spec: ModelSpec, files: Sequence[LockedFile], *, quiet: bool, keep_stamps: bool) -> None:
    """Download files of the pinned revision into the hub cache, and verify them.

    Raises:
        DownloadError: Where a file cannot be downloaded; before any transfer where the disk has no room for all of them.
        IntegrityError: For a file that is not what lock and hub state; it is not kept.
    """
    stated = [stated_by_hub(spec, file) for file in files]
    _check_space(spec, files, stated)
    with _progress_bars(quiet):
        for file, by_hub in zip(files, stated, strict=True):
            _download(spec, file, by_hub, keep_stamps=keep_stamps)


def remove(path: Path) -> str:
    """Remove a wrong file from the hub cache, its links and its blob, and nothing outside; return the hint for the user."""
    from huggingface_hub import constants

    hint = _AGAIN
    cache = Path(constants.HF_HUB_CACHE).resolve()
    step: Path | None = path
    try:
        while step is not None:
            here = step.parent.resolve() / step.name
            if not here.is_relative_to(cache):
                break
            step = here.parent / here.readlink() if here.is_symlink() else None
            here.unlink(missing_ok=True)
    except OSError as error:
        hint = f"It could not be removed ({error.strerror}): remove it by hand first. {_AGAIN}"
    return hint


def source(spec: ModelSpec) -> tuple[str, str]:
    """Return the repository and the revision of a model of the hub."""
    if spec.repository is None or spec.revision is None:
        raise ValueError(f"{spec.id} does not come from the hub")
    return spec.repository, spec.revision


def _download(spec: ModelSpec, file: LockedFile, stated: Expected, *, keep_stamps: bool) -> None:
    from huggingface_hub import hf_hub_download

    repository, revision = source(spec)
    path = Path(
        _from_hub(
            spec,
            file.name,
            lambda: hf_hub_download(
                repository, file.name, revision=revision, library_name="tipsseg", library_version=__version__
            ),
        )
    )
    size = file.size if file.size is not None else stated.size
    expected = Expected("sha256", file.sha256, size) if file.sha256 else Expected(stated.kind, stated.digest, size)
    if (mismatch := find_mismatch(path, expected, keep_stamp=keep_stamps)) is not None:
        raise IntegrityError(path, *mismatch, remove(path))


def _check_space(spec: ModelSpec, files: Sequence[LockedFile], stated: Sequence[Expected]) -> None:
    """Raise DownloadError if the disk of the cache has no room for the absent files."""
    repository, revision = source(spec)
    storage = _storage(repository)
    absent = [
        (file.name, by_hub.size or 0)
        for file, by_hub in zip(files, stated, strict=True)
        if not (storage / "blobs" / by_hub.digest).exists()
    ]
    needed = sum(size for _, size in absent)
    try:
        free = shutil.disk_usage(next(folder for folder in storage.parents if folder.exists())).free
    except OSError:
        return  # what is wrong with the folder is told when it is used
    if needed > free:
        largest, _ = max(absent, key=lambda each: each[1])
        reason = f"{needed:,} bytes are to be downloaded, and the disk of {storage.parent} has {free:,} bytes free"
        hint = "Free some space, or set HF_HOME to a folder on a larger disk."
        raise DownloadError(repository, revision, largest, reason, hint)


def _storage(repository: str) -> Path:
    """The folder of a repository in the cache; the layout is documented and shared by all programs that use the hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


@contextmanager
def _progress_bars(quiet: bool) -> Iterator[None]:
    """huggingface_hub's progress bars, off where `quiet`. The user's HF_HUB_DISABLE_PROGRESS_BARS has precedence."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not typed as exported
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if not quiet or are_progress_bars_disabled() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _from_hub(spec: ModelSpec, name: str, work: Callable[[], _Result]) -> _Result:
    """Call `work`, again if the hub is down, and turn its errors into a DownloadError."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        for wait in _WAITS:
            try:
                return work()
            except HfHubHTTPError as error:
                if error.response.status_code not in _DOWN:
                    raise
                time.sleep(wait)
        return work()
    except hub_errors.expected() as error:
        reason, hint = hub_errors.explain(error, spec, in_cache=cached(spec, name) is not None)
        raise DownloadError(*source(spec), name, reason, hint) from error
