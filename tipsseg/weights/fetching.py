"""From a model's id to a folder of verified files: weights.lock says what, the hub delivers, every file is checked.

Nothing is loaded that was not verified. A file is held to the sha256 and size in weights.lock. Where the lock has none, it is held
to what the hub states for the pinned revision; a cached file carries that statement in the name of its blob, so that works without
network. A file that is not what it should be is removed from the hub cache and stops the program.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tipsseg.errors import DownloadError, IntegrityError, UsageError, WeightsError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.util.digests import Expected, Mismatch, digest_of, find_mismatch, stamped
from tipsseg.weights import hub
from tipsseg.weights.lock import find_lock, lock_text, read_lock, write_lock

__all__ = [
    "FileReport",
    "fetch",
    "find_lock",
    "get_model",
    "locate",
    "lock_text",
    "read_lock",
    "resolve_hashes",
    "stated_locally",
    "verify",
    "write_lock",
]

_PACKAGE = Path(__file__).resolve().parents[1]
_REINSTALL = "Reinstall tipsseg."


@dataclass(frozen=True, slots=True)
class FileReport:
    """What verify found for one file; path, size and sha256 are None where it is absent.

    state   "ok": it is what it should be. "absent": it is not there. "unknown": it is there, but neither the lock nor
            the cache states its hash, so there is nothing to hold it to without network.
    """

    name: str
    path: Path | None
    size: int | None
    sha256: str | None
    state: Literal["ok", "absent", "unknown"]


def get_model(name: str) -> ModelSpec:
    """The entry of a model in this installation's lock, by its id or by the name of its repository on the hub.

    Raises UsageError for a name that is not there and LockError for a lock that cannot be used.
    """
    models = read_lock()
    known = models | {model.repository.lower(): model for model in models.values() if model.repository is not None}
    # The hub takes capitals and small letters in names of repositories for the same.
    found = models.get(name) or known.get(name.lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f"Did you mean {known[close[0]].id}? " if close else ""
    raise UsageError(
        f"unknown model {name!r}; the known ones are {', '.join(models)}",
        f"{guess}A model in a local folder is given as the path of that folder, which must exist.",
    )


def fetch(spec: ModelSpec, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
    """The folder that has the verified files of a model; what is absent is downloaded.

    No network is used when all files are there. With `keep_stamps` the user's cache spares hashing them the next time. Raises
    DownloadError, IntegrityError (the bad file is removed from the hub cache) and WeightsError.
    """
    return _folder(spec, _ensure(spec, spec.files, quiet=quiet, keep_stamps=keep_stamps))


def locate(spec: ModelSpec) -> Path | None:
    """The folder that has all files of a model, unverified; None when any is absent. No network."""
    paths = [_find(spec, file) for file in spec.files]
    return None if paths[0] is None or None in paths else _folder(spec, paths[0])


def verify(spec: ModelSpec) -> list[FileReport]:
    """Hash every file that is there, whatever was verified before. No network.

    Raises IntegrityError for the first bad one, after removing it from the hub cache.
    """
    reports = []
    for file in spec.files:
        path = _find(spec, file)
        if path is None:
            reports.append(FileReport(file.name, None, None, None, "absent"))
            continue
        with _readable(path):
            expected = stated_locally(spec, file, path)
            if expected is not None:
                _require(spec, path, find_mismatch(path, expected, trust_stamp=False, keep_stamp=True))
            known = expected is not None and expected.kind == "sha256"
            sha256 = expected.digest if expected is not None and known else digest_of(path, "sha256")
            state: Literal["ok", "unknown"] = "unknown" if expected is None else "ok"
            reports.append(FileReport(file.name, path, path.stat().st_size, sha256, state))
    return reports


def resolve_hashes(spec: ModelSpec) -> ModelSpec:
    """The same entry with size and sha256 of every file, as the hub states them for the pinned revision.

    The hub states the sha256 of large files. Of small ones it states the hash of their git blob: those are downloaded,
    held to that, and hashed here. Raises DownloadError, and IntegrityError where the lock says otherwise already. An
    embedded model has its hashes in the lock and comes back as it is.
    """
    if spec.embedded is not None:
        return spec
    return dataclasses.replace(spec, files=tuple(_resolved(spec, file) for file in spec.files))


def _resolved(spec: ModelSpec, file: LockedFile) -> LockedFile:
    stated = hub.stated_by_hub(spec, file)
    if stated.kind == "sha256" and stated.size is not None:
        return LockedFile(file.name, stated.size, stated.digest)
    path = _ensure(spec, [file], quiet=True, keep_stamps=True)
    with _readable(path):
        _require(spec, path, find_mismatch(path, stated, trust_stamp=False, keep_stamp=True))
        return LockedFile(file.name, path.stat().st_size, digest_of(path, "sha256"))


def _ensure(spec: ModelSpec, files: Sequence[LockedFile], *, quiet: bool, keep_stamps: bool) -> Path:
    """Verify what is here of the files, and download the others; gives the path of the first."""
    absent = []
    for file in files:
        path = _find(spec, file)
        if path is None:
            absent.append(file)
            continue
        with _readable(path):
            expected = stated_locally(spec, file, path) or _stated_by_hub(spec, file, path)
            _require(spec, path, find_mismatch(path, expected, keep_stamp=keep_stamps))
    if absent and spec.embedded is not None:
        raise WeightsError(f"{_PACKAGE / spec.embedded / absent[0].name} is missing from the installation", _REINSTALL)
    if absent:
        hub.download(spec, absent, quiet=quiet, keep_stamps=keep_stamps)
    first = _find(spec, files[0])
    if first is None:
        raise WeightsError(
            f"{files[0].name} of {spec.id} was removed while it was looked for", "Run the command again."
        )
    return first


def _find(spec: ModelSpec, file: LockedFile) -> Path | None:
    if spec.embedded is None:
        return hub.cached(spec, file.name)
    path = _PACKAGE / spec.embedded / file.name
    return path if path.is_file() else None


def _folder(spec: ModelSpec, first: Path) -> Path:
    if spec.embedded is not None:
        return _PACKAGE / spec.embedded
    # The first file may lie deeper, "weights/model.safetensors".
    return first.parents[spec.files[0].name.count("/")]


def stated_locally(spec: ModelSpec, file: LockedFile, path: Path) -> Expected | None:
    """What a file must be, by the lock, else by the hub's statement in the cache, else by what was verified before."""
    if file.sha256 is not None:
        return Expected("sha256", file.sha256, file.size)
    stated = hub.stated_in_cache(path, file.size) if spec.embedded is None else None
    if stated is None and (stamp := stamped(path)) is not None:
        stated = dataclasses.replace(stamp, size=file.size)
    return stated


def _stated_by_hub(spec: ModelSpec, file: LockedFile, path: Path) -> Expected:
    try:
        return hub.stated_by_hub(spec, file)
    except DownloadError as error:
        raise DownloadError(
            error.repository,
            error.revision,
            error.file,
            f"{path} cannot be verified, because neither weights.lock nor the cache states its hash and {error.reason}",
            f"Run `tipsseg weights download {spec.id}` once with network; it is remembered then.",
        ) from error


def _require(spec: ModelSpec, path: Path, mismatch: Mismatch | None) -> None:
    if mismatch is None:
        return
    if spec.embedded is not None:
        raise IntegrityError(path, mismatch.what, mismatch.expected, mismatch.got, _REINSTALL)
    raise hub.reject(path, mismatch)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "Check its permissions.") from error
