"""Download the files of a model in weights.lock from the Hugging Face hub, and verify every file.

Only verified files are loaded. A file must have the sha256 in weights.lock. If the lock states none, it must have the hash that
the hub states for the pinned revision; the hub cache stores that hash as the blob name, so no network is needed. A file that does
not match is removed from the hub cache, and the program stops.

A stamp records the sha256 of a file together with its size, inode, modification time and ctime. No program can set the ctime, so a
file is hashed again after every write, even if its size and modification time were restored. A stamp is a small JSON file in the
folder `verified` of tipsseg's cache. Stamps only save time: if one cannot be read or written, the file is hashed again.

huggingface_hub transfers files into its own cache, which is shared with transformers. The files are downloaded one by one with
`hf_hub_download`, because `snapshot_download` uses threads: Ctrl-C would only end it once the file is complete. huggingface_hub is
imported inside functions, because the import is slow and reads the environment: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and others.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tipsseg.errors import DownloadError, IntegrityError, OutputError, WeightsError, Words
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.util.files import atomic_write, cache_folder
from tipsseg.util.text import first_line


def sha256_of(path: Path, *, trust_stamp: bool = True, keep_stamp: bool = False) -> str:
    """Return the sha256 of a file in hex, from its stamp if the file is unchanged. Raise OSError if that fails.

    With `keep_stamp`, a stamp is written.
    """
    status = path.stat()  # before the file is hashed, so that the stamp is invalid if the file changes meanwhile
    state = {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }
    stamp = _read_stamp(path)
    if trust_stamp and stamp == {**state, "sha256": stamp.get("sha256")}:
        return str(stamp["sha256"])
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    stamp_file = _stamp_file(path)
    if keep_stamp and stamp_file is not None:
        with contextlib.suppress(OutputError):
            atomic_write(stamp_file, json.dumps({**state, "sha256": sha256}).encode())
    return sha256


def _read_stamp(path: Path) -> dict[str, Any]:
    stamp_file = _stamp_file(path)
    try:
        stamp = {} if stamp_file is None else json.loads(stamp_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _stamp_file(path: Path) -> Path | None:
    cache = cache_folder()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json"
    return None if cache is None else cache / "verified" / name


_PACKAGE = Path(__file__).resolve().parents[1]
_REINSTALL = "Reinstall tipsseg."

#: The hash that the hub states: a sha256 for large files, a git blob hash for small ones.
_HUB_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")

#: "unknown": neither the lock nor the cache states the hash of the file; only the hub could.
FileState = Literal["ok", "absent", "unknown"]


def fetch(spec: ModelSpec, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
    """Download missing files of a model, verify all, and return their folder.

    Uses the network only if a file is missing, or its hash is unknown. With `keep_stamps`, writes stamps that make the next
    verification fast.

    Raises:
        DownloadError: A file cannot be downloaded.
        IntegrityError: A file does not match its hash; it was removed from the hub cache.
        WeightsError: A file cannot be read.
    """
    folder = _folder(spec)
    for file in spec.files:
        path = folder / file.name
        if not path.is_file():
            _download(spec, file.name, quiet=quiet)
        expected = _expected_hash(file, path) or _ask_for_hash(spec, file.name, path)
        _check(spec, path, expected, keep_stamp=keep_stamps)
    return folder


def locate(spec: ModelSpec) -> Path | None:
    """Return the folder of a model's files without verifying them; None if a file is missing. Uses no network."""
    folder = _folder(spec)
    return folder if all((folder / file.name).is_file() for file in spec.files) else None


def verify(spec: ModelSpec, *, trust_stamps: bool = False, keep_wrong: bool = False) -> dict[str, FileState]:
    """Verify every local file, and return their states by file name. Uses no network.

    Raise IntegrityError for the first file that does not match, after removing it from the hub cache, unless `keep_wrong`.
    """
    states: dict[str, FileState] = {}
    for file in spec.files:
        path = _folder(spec) / file.name
        if not path.is_file():
            states[file.name] = "absent"
        elif (expected := _expected_hash(file, path)) is None:
            states[file.name] = "unknown"
        else:
            _check(spec, path, expected, trust_stamp=trust_stamps, keep_stamp=True, keep_wrong=keep_wrong)
            states[file.name] = "ok"
    return states


def resolve_hashes(spec: ModelSpec) -> ModelSpec:
    """Return the model with the size and sha256 of each file on the hub. An embedded model is returned unchanged.

    The hub states a sha256 for large files only. Small files are downloaded, verified and hashed.

    Raises:
        DownloadError: The hub cannot be reached.
        IntegrityError: The hash in the lock differs.
    """
    if spec.embedded is not None:
        return spec
    files = []
    for file in spec.files:
        path = _folder(spec) / file.name
        sha256, size = _ask_hub(spec, file.name)
        if len(sha256) == 40:
            _download(spec, file.name, quiet=True)
            _check(spec, path, sha256)
            sha256, size = sha256_of(path), path.stat().st_size
        if file.sha256 not in (None, sha256):
            hint = "If you changed the revision, remove the hashes of its files. Otherwise do not trust HF_ENDPOINT."
            raise IntegrityError(path, "sha256", str(file.sha256), sha256, hint)
        files.append(LockedFile(file.name, size, sha256))
    return replace(spec, files=tuple(files))


def _expected_hash(file: LockedFile, path: Path) -> str | None:
    """Return the hash that a file must have: from the lock, else from the hub cache. A cache without links states none."""
    blob = path.readlink().name if path.is_symlink() else ""
    return file.sha256 or (blob if _HUB_HASH.fullmatch(blob) else None)


def _check(
    spec: ModelSpec,
    path: Path,
    expected: str,
    *,
    trust_stamp: bool = True,
    keep_stamp: bool = False,
    keep_wrong: bool = False,
) -> None:
    """Compare a file with its hash. Remove a wrong file from the hub cache, unless `keep_wrong`.

    Raises:
        IntegrityError: The file does not match.
        WeightsError: The file cannot be read or removed.
    """
    try:
        if len(expected) == 40:
            kind, content = "git-sha1", path.read_bytes()
            got = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        else:
            kind, got = "sha256", sha256_of(path, trust_stamp=trust_stamp, keep_stamp=keep_stamp)
        if got == expected:
            return
        if spec.embedded is not None:
            hint = _REINSTALL
        elif keep_wrong:
            hint = f"`tipsseg weights verify {spec.id}` removes it."
        else:
            _remove(path)
            hint = (
                "It was removed. Run the command again to download it. If the error persists, the hub or a proxy serves "
                "another file than the pinned one."
            )
    except OSError as error:
        raise WeightsError(f"cannot verify {path}: {error.strerror or error}", "Check its permissions.") from error
    raise IntegrityError(path, kind, expected, got, hint)


def _remove(path: Path) -> None:
    """Remove a file and the blob that it links to, but nothing outside the hub cache."""
    from huggingface_hub import constants

    blob = path.resolve()
    path.unlink()
    if blob.is_relative_to(Path(constants.HF_HUB_CACHE).resolve()):
        blob.unlink(missing_ok=True)


def _folder(spec: ModelSpec) -> Path:
    if spec.embedded is not None:
        return _PACKAGE / spec.embedded
    from huggingface_hub import constants

    storage = f"models--{str(spec.repository).replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE, storage, "snapshots", str(spec.revision))


# ---- the hub ----


def _download(spec: ModelSpec, name: str, *, quiet: bool) -> None:
    if spec.embedded is not None:
        raise WeightsError(f"{_folder(spec) / name} is missing from the installation", _REINSTALL)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented, but not typed as exported

    class SilentBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    _ask_hub(spec, name)  # at once, whereas hf_hub_download tries for half a minute without a network
    with _explain_errors(spec, name):
        bar = SilentBar if quiet else None
        hf_hub_download(str(spec.repository), name, revision=spec.revision, tqdm_class=bar)


def _ask_hub(spec: ModelSpec, name: str) -> tuple[str, int | None]:
    """Return the hash and the size that the hub states for a file of the pinned revision. Raise DownloadError if that fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _explain_errors(spec, name):
        metadata = get_hf_file_metadata(hf_hub_url(str(spec.repository), name, revision=spec.revision))
        if metadata.etag is None or not _HUB_HASH.fullmatch(metadata.etag):
            raise ValueError(f"the ETag {metadata.etag!r} is not a hash")
    return metadata.etag, metadata.size


def _ask_for_hash(spec: ModelSpec, name: str, path: Path) -> str:
    try:
        return _ask_hub(spec, name)[0]
    except DownloadError as error:
        reason = "neither weights.lock nor the cache states its hash, and " + error.reason
        hint = f"Run `tipsseg weights lock {spec.id}` once with a network connection; it writes the hashes to weights.lock."
        raise WeightsError(f"cannot verify {path}: " + reason, hint) from error


@contextmanager
def _explain_errors(spec: ModelSpec, name: str) -> Iterator[None]:
    """Turn the errors of the hub, the network and the disk into a DownloadError."""
    from huggingface_hub import constants, errors

    try:
        yield
        return
    except Exception as caught:  # which ones httpx and Xet raise depends on the version of huggingface_hub
        error = caught
    while isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the actual error
    hub = constants.ENDPOINT
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    without_network = Words(
        "Without a network: use {model}=tiny, which is included, or run `tipsseg weights download {id}` "
        "on another machine and copy its cache to {hf_hub_cache}.",
        id=spec.id,
        hf_hub_cache=constants.HF_HUB_CACHE,
    )
    hint: str
    if isinstance(error, errors.OfflineModeIsEnabled):
        reason, hint = "offline mode is on", "Unset HF_HUB_OFFLINE. " + without_network
    elif isinstance(error, errors.GatedRepoError):
        reason = "the repository is gated, and this account has no access"
        hint = f"Request access at {hub}/{spec.repository}, then set HF_TOKEN to a token of that account."
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        reason = f"{hub} has no such repository, or this account has no access to it"
        hint = "Set HF_TOKEN to a token with read access. Replace an expired token."
    elif isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        missing = "revision" if isinstance(error, errors.RevisionNotFoundError) else "file"
        reason = f"{hub} has no such {missing}"
        hint = "Check weights.lock and HF_ENDPOINT, or update tipsseg."
    elif status is not None:
        reason, hint = f"{hub} answered with HTTP {status}", "Wait some minutes, and run the command again."
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason, hint = "the disk is full", "Free some space, or set HF_HOME to a folder on a larger disk."
    elif isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
        reason = f"cannot write to the cache ({first_line(error)})"
        hint = "Set HF_HOME to a folder that can be written."
    else:
        reason = f"the download from {hub} failed ({first_line(error)})"
        hint = "Check the network, HF_ENDPOINT and the proxy settings, and run the command again. " + without_network
    raise DownloadError(str(spec.repository), str(spec.revision), name, reason, hint) from error
