"""Download files of a pinned revision from the Hugging Face hub into the hub's own cache.

huggingface_hub looks up the cache, transfers files (with Xet if the hub supports it) and creates links; it shares its cache with
transformers. This module asks the hub for hashes and sizes before any transfer, compares the sizes with the free disk space, and
hashes each file after its download. A file that does not match is removed, and the program stops.

Behaviour of huggingface_hub, tested with 1.20.1 and 2.4.0, that this module does not change:

* Each process writes its own temporary file and renames it once complete, so that concurrent processes cannot mix their bytes,
  even on a file system that ignores locks.
* After a connection error, the download resumes in steps of 10 MiB. It fails after six errors without progress. If the
  program is stopped, the file is downloaded again from the start. SIGKILL leaves the temporary file `blobs/*.incomplete`.
* A body longer than stated is written completely, then rejected and removed. An endless body is written until the disk is full or
  the program is stopped, then removed.
* A slow body is accepted as long as some data arrives every HF_HUB_DOWNLOAD_TIMEOUT seconds (10).
* Xet does not verify the hash of the file.
* If the hub answers the request for a body with HTTP 429 and `Retry-After`, 2.4.0 waits that long, even 27 hours, and prints a
  message to stderr; 1.20.1 waits some seconds. HTTP 429 to the preceding request for hash and size ends the program.

huggingface_hub is imported inside functions, because the import is slow and reads the environment: HF_HOME, HF_ENDPOINT,
HF_HUB_OFFLINE and others.
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

#: Seconds to wait before each retry if the hub is down.
_WAITS = (1.0, 2.0)
_DOWN = (500, 502, 503, 504)

_AGAIN = (
    "Run the command again to repeat the download. If the error persists, the file that the hub or a proxy serves "
    "differs from the pinned one."
)
_DISAGREE = (
    "weights.lock and the hub disagree about this revision. If you edited the revision in weights.lock, "
    "remove the size and sha256 of its files and run `tipsseg weights lock`. Otherwise do not trust this endpoint."
)


def find_cached(spec: ModelSpec, name: str) -> Path | None:
    """Return the path of a pinned file in the hub cache; None if it is missing. Uses no network."""
    from huggingface_hub import try_to_load_from_cache

    repository, revision = source(spec)
    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def cached_expectation(path: Path, size: int | None = None) -> Expected | None:
    """Return the hash that the hub stated for a cached file: the name of the blob that the snapshot links to."""
    return expected_from_name(path.readlink().name, size) if path.is_symlink() else None


def ask_hub(spec: ModelSpec, file: LockedFile) -> Expected:
    """Ask the hub for the hash and the size of a pinned file.

    Raises:
        DownloadError: The hub cannot be reached, or states no hash.
        IntegrityError: The hub and the lock disagree.
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
            else f"sent the ETag {metadata.etag!r}, which is not a hash"
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
    """Download pinned files into the hub cache and verify them.

    Raises:
        DownloadError: A file cannot be downloaded, or the disk is too small for all files, which is checked first.
        IntegrityError: A file does not match the hash from the lock or the hub; it was removed.
    """
    stated = [ask_hub(spec, file) for file in files]
    _check_space(spec, files, stated)
    with _progress_bars(quiet):
        for file, expected in zip(files, stated, strict=True):
            _download(spec, file, expected, keep_stamps=keep_stamps)


def remove(path: Path) -> str:
    """Remove a file from the hub cache with its links and its blob, but nothing outside the cache. Return a hint for the user."""
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
        hint = f"The file could not be removed ({error.strerror}): remove it first. {_AGAIN}"
    return hint


def source(spec: ModelSpec) -> tuple[str, str]:
    if spec.repository is None or spec.revision is None:
        raise ValueError(f"{spec.id} is not a hub model")
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
    """Raise DownloadError if the missing files do not fit on the disk of the cache."""
    repository, revision = source(spec)
    storage = _storage(repository)
    missing = [
        (file.name, expected.size or 0)
        for file, expected in zip(files, stated, strict=True)
        if not (storage / "blobs" / expected.digest).exists()
    ]
    needed = sum(size for _, size in missing)
    try:
        free = shutil.disk_usage(next(folder for folder in storage.parents if folder.exists())).free
    except OSError:
        return  # using the folder will raise a better error
    if needed > free:
        largest, _ = max(missing, key=lambda entry: entry[1])
        reason = f"the download needs {needed:,} bytes, but the disk of {storage.parent} has {free:,} bytes free"
        hint = "Free some space, or set HF_HOME to a folder on a larger disk."
        raise DownloadError(repository, revision, largest, reason, hint)


def _storage(repository: str) -> Path:
    """Return the cache folder of a repository. The layout is documented, and all programs that use the hub share it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


@contextmanager
def _progress_bars(quiet: bool) -> Iterator[None]:
    """Turn off huggingface_hub's progress bars if `quiet`, unless the user sets HF_HUB_DISABLE_PROGRESS_BARS."""
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
    """Call `work`, retry while the hub is down, and turn its errors into a DownloadError."""
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
    except hub_errors.expected_errors() as error:
        reason, hint = hub_errors.explain(error, spec, in_cache=find_cached(spec, name) is not None)
        raise DownloadError(*source(spec), name, reason, hint) from error
