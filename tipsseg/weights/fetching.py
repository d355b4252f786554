"""Download the files of a model in weights.lock from the hub, and verify every file.

Only verified files are loaded. A file must have the size and the sha256 in weights.lock. If the lock states none, it must have the
hash that the hub states for the pinned revision; the hub cache stores that hash as the blob name, so no network is needed.
A file that does not match is removed from the hub cache, and the program stops.
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
from tipsseg.weights.digests import Expected, find_mismatch, hash_file, read_stamp

_PACKAGE = Path(__file__).resolve().parents[1]
_REINSTALL = "Reinstall tipsseg."

#: "unknown": neither the lock nor the cache states the hash of the file; only the hub could.
State = Literal["ok", "absent", "unknown"]


def fetch(spec: ModelSpec, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
    """Verify the files of a model, download missing ones, and return their folder.

    Uses the network only if a file is missing. With `keep_stamps`, writes stamps that make the next verification fast.

    Raises:
        DownloadError: A file cannot be downloaded.
        IntegrityError: A file does not match its hash; it was removed from the hub cache.
        WeightsError: A file cannot be read.
    """
    return _folder(spec, _ensure(spec, spec.files, quiet=quiet, keep_stamps=keep_stamps))


def locate(spec: ModelSpec) -> Path | None:
    """Return the folder of a model's files without verifying them; None if a file is missing. Uses no network."""
    paths = [_find(spec, file) for file in spec.files]
    return None if paths[0] is None or None in paths else _folder(spec, paths[0])


def verify(spec: ModelSpec) -> dict[str, State]:
    """Hash every local file, ignoring stamps, and return their states by file name. Uses no network.

    Raises IntegrityError for the first file that does not match, after removing it from the hub cache.
    """
    states: dict[str, State] = {}
    for file in spec.files:
        path = _find(spec, file)
        expected = None if path is None else local_expectation(spec, file, path)
        if path is not None and expected is not None:
            _require(spec, path, expected, trust_stamp=False)
        states[file.name] = "absent" if path is None else "unknown" if expected is None else "ok"
    return states


def resolve_hashes(spec: ModelSpec) -> ModelSpec:
    """Return the model with the size and sha256 that the hub states for each file in the pinned revision.

    The hub states a sha256 for large files only. Small files have a git blob hash: they are downloaded, compared with it, and
    hashed locally. An embedded model is returned unchanged.

    Raises:
        DownloadError: The hub cannot be reached.
        IntegrityError: The hash or the size in the lock differs.
    """
    if spec.embedded is not None:
        return spec
    return replace(spec, files=tuple(_resolved(spec, file) for file in spec.files))


def _resolved(spec: ModelSpec, file: LockedFile) -> LockedFile:
    stated = hub.ask_hub(spec, file)
    if stated.kind == "sha256" and stated.size is not None:
        return LockedFile(file.name, stated.size, stated.digest)
    path = _ensure(spec, [file], quiet=True, keep_stamps=True)
    _require(spec, path, stated, trust_stamp=False)
    with _reading(path):
        return LockedFile(file.name, path.stat().st_size, hash_file(path, "sha256"))


def _ensure(spec: ModelSpec, files: Sequence[LockedFile], *, quiet: bool, keep_stamps: bool) -> Path:
    """Verify local files, download missing ones, and return the path of the first."""
    missing = []
    for file in files:
        path = _find(spec, file)
        if path is None:
            missing.append(file)
            continue
        expected = local_expectation(spec, file, path) or _ask_hub(spec, file, path)
        _require(spec, path, expected, keep_stamp=keep_stamps)
    if missing and spec.embedded is not None:
        raise WeightsError(f"{_PACKAGE / spec.embedded / missing[0].name} is missing from the installation", _REINSTALL)
    if missing:
        hub.download(spec, missing, quiet=quiet, keep_stamps=keep_stamps)
    first = _find(spec, files[0])
    if first is None:
        raise WeightsError(
            f"{files[0].name} of {spec.id} was removed while the model was verified", "Run the command again."
        )
    return first


def _find(spec: ModelSpec, file: LockedFile) -> Path | None:
    if spec.embedded is None:
        return hub.find_cached(spec, file.name)
    path = _PACKAGE / spec.embedded / file.name
    return path if path.is_file() else None


def _folder(spec: ModelSpec, first: Path) -> Path:
    if spec.embedded is not None:
        return _PACKAGE / spec.embedded
    # The first file may be in a subfolder: "weights/model.safetensors".
    return first.parents[spec.files[0].name.count("/")]


def local_expectation(spec: ModelSpec, file: LockedFile, path: Path) -> Expected | None:
    """Return the expected hash of a file: from the lock, else from the hub cache, else from an earlier verification."""
    if file.sha256 is not None:
        return Expected("sha256", file.sha256, file.size)
    stated = hub.cached_expectation(path, file.size) if spec.embedded is None else None
    if stated is None and (stamp := read_stamp(path)) is not None:
        stated = replace(stamp, size=file.size)
    return stated


def _ask_hub(spec: ModelSpec, file: LockedFile, path: Path) -> Expected:
    try:
        return hub.ask_hub(spec, file)
    except DownloadError as error:
        raise DownloadError(
            error.repository,
            error.revision,
            error.file,
            f"cannot verify {path}: neither weights.lock nor the cache states its hash, and {error.reason}",
            f"Run `tipsseg weights download {spec.id}` once with a network connection; its hash is then cached.",
        ) from error


def _require(
    spec: ModelSpec, path: Path, expected: Expected, *, trust_stamp: bool = True, keep_stamp: bool = True
) -> None:
    with _reading(path):
        mismatch = find_mismatch(path, expected, trust_stamp=trust_stamp, keep_stamp=keep_stamp)
    if mismatch is not None:
        raise IntegrityError(path, *mismatch, _REINSTALL if spec.embedded is not None else hub.remove(path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}", "Check its permissions.") from error
