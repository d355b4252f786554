"""One file of a pinned revision out of the Hugging Face hub, into the hub's ordinary cache.

huggingface_hub looks into the cache, asks the hub, transfers and links; its cache, and so every file, is shared with
transformers. Two things are done here instead. First, the partial file: since its 2.x releases huggingface_hub starts
from nothing after a broken download, so the bytes are collected here, under the cache's own lock and names, and go on
where they stopped. Second, the hash: a file is checked before it gets its name in the cache, not after.

huggingface_hub is imported inside the functions: it is slow to import, and reads HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE
and the like from the environment at that moment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tipsseg import hub_errors
from tipsseg.digests import Expected, Mismatch, compare, expected_from_name, find_mismatch, remember
from tipsseg.errors import DownloadError, IntegrityError, TipssegError
from tipsseg.records import LockedFile, ModelSpec

_Result = TypeVar("_Result")

#: Seconds to wait before asking again when the hub is busy or down, or the connection broke.
_WAITS = (1.0, 2.0)

_AGAIN = (
    "Run the command again to download it afresh; if this repeats, the hub or a proxy on the way delivers something "
    "else than is pinned."
)
_DISAGREE = (
    "weights.lock and the hub disagree about this revision: if the revision in weights.lock was changed by hand, "
    "remove the size and sha256 of its files and run `tipsseg weights lock`; otherwise do not trust this endpoint."
)


def cached(spec: ModelSpec, name: str) -> Path | None:
    """Where the hub cache has this file of the pinned revision; None when it does not. No network."""
    from huggingface_hub import try_to_load_from_cache

    repository, revision = source(spec)
    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def stated_in_cache(path: Path, size: int | None = None) -> Expected | None:
    """The hash that the hub stated for a cached file: it is the name of the blob that the snapshot links to.

    None where the cache works without symbolic links.
    """
    return expected_from_name(path.readlink().name, size) if path.is_symlink() else None


def stated_by_hub(spec: ModelSpec, file: LockedFile) -> Expected:
    """Ask the hub for hash and size of a file of the pinned revision.

    Raises DownloadError, and IntegrityError where hub and lock contradict each other.
    """
    return _with_patience(spec, file.name, lambda: _ask(spec, file))


def download(spec: ModelSpec, file: LockedFile, *, quiet: bool) -> Path:
    """Bring a file of the pinned revision into the hub cache, verified; gives its path in the snapshot folder.

    Goes on with what an earlier run left. Raises DownloadError, and IntegrityError for a file that is not what lock and
    hub state; nothing of that one is kept.
    """
    with _progress_bars(quiet):
        return _with_patience(spec, file.name, lambda: _download(spec, file))


def reject(path: Path, mismatch: Mismatch) -> IntegrityError:
    """Remove a bad file from the hub cache, its link and its blob; gives the error to raise.

    Nothing outside the hub cache is removed.
    """
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
    return IntegrityError(path, mismatch.what, mismatch.expected, mismatch.got, hint)


def source(spec: ModelSpec) -> tuple[str, str]:
    """Repository and revision of a model that lives on the hub."""
    if spec.repository is None or spec.revision is None:
        raise ValueError(f"{spec.id} does not come from the hub")
    return spec.repository, spec.revision


def _snapshot_path(spec: ModelSpec, name: str) -> Path:
    repository, revision = source(spec)
    return _storage(repository) / "snapshots" / revision / name


def _storage(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _ask(spec: ModelSpec, file: LockedFile) -> Expected:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    repository, revision = source(spec)
    metadata = get_hf_file_metadata(
        hf_hub_url(repository, file.name, revision=revision),
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        library_name="tipsseg",
    )
    if metadata.commit_hash != revision:
        reason = f"{constants.ENDPOINT} answered for revision {metadata.commit_hash}"
        raise DownloadError(repository, revision, file.name, reason, "Check HF_ENDPOINT and the proxy settings.")
    stated = expected_from_name(metadata.etag or "", metadata.size)
    if stated is None:
        reason = f"{constants.ENDPOINT} states no sha256 for it, but {metadata.etag!r}"
        raise DownloadError(repository, revision, file.name, reason, "Check HF_ENDPOINT and the proxy settings.")
    path = _snapshot_path(spec, file.name)
    if None not in (file.size, stated.size) and file.size != stated.size:
        raise IntegrityError(path, "size", f"{file.size} bytes", f"{stated.size} bytes", _DISAGREE)
    if stated.kind == "sha256" and file.sha256 not in (None, stated.digest):
        raise IntegrityError(path, "sha256", str(file.sha256), stated.digest, _DISAGREE)
    return stated


def _download(spec: ModelSpec, file: LockedFile) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    repository, revision = source(spec)
    stated = _ask(spec, file)
    size = file.size if file.size is not None else stated.size
    expected = Expected("sha256", file.sha256, size) if file.sha256 else Expected(stated.kind, stated.digest, size)
    storage = _storage(repository)
    blob = storage / "blobs" / stated.digest
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / storage.name / f"{stated.digest}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # The lock that huggingface_hub itself takes, so that one process downloads and the others wait for its file.
    with WeakFileLock(lock):
        if cached(spec, file.name) is None and not blob.is_file():
            partial = blob.with_name(f"{blob.name}.incomplete")
            mismatch = _transfer(spec, file.name, partial, expected)
            if mismatch is not None:
                partial.unlink(missing_ok=True)
                path = _snapshot_path(spec, file.name)
                raise IntegrityError(path, mismatch.what, mismatch.expected, mismatch.got, _AGAIN)
            partial.replace(blob)
            remember(blob, expected)
    # With the blob there this only links it into the snapshot, or copies it where there are no symbolic links.
    linked = Path(hf_hub_download(repository, file.name, revision=revision, library_name="tipsseg"))
    if (mismatch := find_mismatch(linked, expected)) is not None:
        raise reject(linked, mismatch)
    if not linked.is_symlink():
        with WeakFileLock(lock):
            blob.unlink(missing_ok=True)
    return linked


def _transfer(spec: ModelSpec, name: str, partial: Path, expected: Expected) -> Mismatch | None:
    """Complete the partial file; what is wrong with it then, or None."""
    resumed = partial.stat().st_size if partial.is_file() else 0
    if expected.size is None or resumed > expected.size:
        partial.unlink(missing_ok=True)
        resumed = 0
    _check_space(spec, name, partial, expected, resumed)
    _fill(spec, name, partial, resumed, expected.size)
    mismatch = compare(partial, expected)
    if mismatch is not None and resumed > 0:
        # The old part may have been damaged, or the server may not know how to resume: the fault need not be in the
        # file, so once from the start.
        partial.unlink(missing_ok=True)
        _fill(spec, name, partial, 0, expected.size)
        mismatch = compare(partial, expected)
    return mismatch


def _fill(spec: ModelSpec, name: str, partial: Path, resumed: int, size: int | None) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    repository, revision = source(spec)
    # Not compressed: byte ranges must count bytes of the file. The hub redirects to its content servers; the client
    # follows, and does not send the token to another host.
    headers = {**build_hf_headers(library_name="tipsseg"), "Accept-Encoding": "identity"}
    with partial.open("ab") as stream:
        if resumed == 0 or resumed != size:
            url = hf_hub_url(repository, name, revision=revision)
            http_get(url, stream, resume_size=resumed, headers=headers, displayed_filename=name)


def _check_space(spec: ModelSpec, name: str, partial: Path, expected: Expected, resumed: int) -> None:
    if expected.size is None:
        return
    needed, free = expected.size - resumed, shutil.disk_usage(partial.parent).free
    if needed > free:
        reason = f"it needs {needed:,} bytes more, and {partial.parent} has {free:,} free"
        raise DownloadError(*source(spec), name, reason, "Make room, or set HF_HOME to a folder on a larger disk.")


@contextmanager
def _progress_bars(quiet: bool) -> Iterator[None]:
    """huggingface_hub's progress bars, off where `quiet`. The user's HF_HUB_DISABLE_PROGRESS_BARS has precedence."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not quiet or are_progress_bars_disabled() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _with_patience(spec: ModelSpec, name: str, work: Callable[[], _Result]) -> _Result:
    """Do something with the hub, again where that may help, and turn the errors of others into ours."""
    for wait in (*_WAITS, None):
        try:
            return work()
        except TipssegError:
            raise
        except Exception as error:
            if wait is None or not hub_errors.is_transient(error):
                if not hub_errors.is_expected(error):
                    raise
                repository, revision = source(spec)
                raise hub_errors.download_error(
                    error,
                    model=spec.id,
                    repository=repository,
                    revision=revision,
                    file=name,
                    storage=_storage(repository),
                    in_cache=cached(spec, name) is not None,
                ) from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")
