"""From a model of weights.lock to a folder of verified files: the hub delivers the files, and every file is checked here.

Only verified files are loaded. A file must have the sha256 and the size in weights.lock. Where the lock has none, it must have
the hash that the hub states for the pinned revision; the hub cache keeps that hash as the name of the file's blob, and no
network is needed to read it. A wrong file is removed from the hub cache and stops the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tipsseg.errors import DownloadError, IntegrityError, WeightsError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import hub
from tipsseg.weights.digests import Expected, find_mismatch, hash_file, stamped

_PACKAGE = Path(__file__).resolve().parents[1]
_REINSTALL = "Reinstall tipsseg."


#: "unknown": neither the lock nor the cache states the hash of the file, and only the hub could tell.
State = Literal["ok", "absent", "unknown"]


def fetch(spec: ModelSpec, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
    """Verify the files of a model, download those that are absent, and return their folder.

    No network is used if all files are there. With `keep_stamps`, stamps in the user's cache save hashing them the next time.

    Raises:
        DownloadError: A file cannot be downloaded.
        IntegrityError: A file is wrong; it is removed from the hub cache.
        WeightsError: A file cannot be read.
    """
    return _folder(spec, _ensure(spec, spec.files, quiet=quiet, keep_stamps=keep_stamps))


def locate(spec: ModelSpec) -> Path | None:
    """Find the folder of a model's files, without verifying them; None if a file is absent. Uses no network."""
    paths = [_find(spec, file) for file in spec.files]
    return None if paths[0] is None or None in paths else _folder(spec, paths[0])


def verify(spec: ModelSpec) -> dict[str, State]:
    """Hash every file that is there, whatever was verified before, and return the state of each. Uses no network.

    Raises IntegrityError for the first wrong file, which is removed from the hub cache.
    """
    states: dict[str, State] = {}
    for file in spec.files:
        path = _find(spec, file)
        expected = None if path is None else stated_locally(spec, file, path)
        if path is not None and expected is not None:
            _require(spec, path, expected, trust_stamp=False)
        states[file.name] = "absent" if path is None else "unknown" if expected is None else "ok"
    return states


def resolve_hashes(spec: ModelSpec) -> ModelSpec:
    """Ask the hub for the size and the sha256 of every file of the pinned revision, and return the model with them.

    The hub states the sha256 of large files. For small files it states the hash of their git blob: they are downloaded,
    compared with that, and hashed here. An embedded model has its hashes in the lock and comes back as it is.

    Raises:
        DownloadError: The hub cannot be asked.
        IntegrityError: The lock already states something else.
    """
    if spec.embedded is not None:
        return spec
    return replace(spec, files=tuple(_resolved(spec, file) for file in spec.files))


def _resolved(spec: ModelSpec, file: LockedFile) -> LockedFile:
    stated = hub.stated_by_hub(spec, file)
    if stated.kind == "sha256" and stated.size is not None:
        return LockedFile(file.name, stated.size, stated.digest)
    path = _ensure(spec, [file], quiet=True, keep_stamps=True)
    _require(spec, path, stated, trust_stamp=False)
    with _readable(path):
        return LockedFile(file.name, path.stat().st_size, hash_file(path, "sha256"))


def _ensure(spec: ModelSpec, files: Sequence[LockedFile], *, quiet: bool, keep_stamps: bool) -> Path:
    """Verify the files that are here, download the others, and return the path of the first."""
    absent = []
    for file in files:
        path = _find(spec, file)
        if path is None:
            absent.append(file)
            continue
        expected = stated_locally(spec, file, path) or _stated_by_hub(spec, file, path)
        _require(spec, path, expected, keep_stamp=keep_stamps)
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
    """Return the hash that a file must have: of the lock, else of the hub cache, else of an earlier verification."""
    if file.sha256 is not None:
        return Expected("sha256", file.sha256, file.size)
    stated = hub.stated_in_cache(path, file.size) if spec.embedded is None else None
    if stated is None and (stamp := stamped(path)) is not None:
        stated = replace(stamp, size=file.size)
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


def _require(
    spec: ModelSpec, path: Path, expected: Expected, *, trust_stamp: bool = True, keep_stamp: bool = True
) -> None:
    with _readable(path):
        mismatch = find_mismatch(path, expected, trust_stamp=trust_stamp, keep_stamp=keep_stamp)
    if mismatch is not None:
        raise IntegrityError(path, *mismatch, _REINSTALL if spec.embedded is not None else hub.remove(path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "Check its permissions.") from error
