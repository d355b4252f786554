"""From a model of weights.lock to a folder of verified files: the hub delivers the files, and every file is checked here.

Only verified files are loaded. A file must have the sha256 and the size in weights.lock. Where the lock has none, it must have
the hash that the hub states for the pinned revision; the hub cache keeps that hash as the name of the file's blob, and no
network is needed to read it. A wrong file is removed from the hub cache and stops the program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tipsseg.errors import DownloadError, IntegrityError, WeightsError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import hub
from tipsseg.weights.digests import Expected, Mismatch, find_mismatch, hash_file, stamped

_PACKAGE = Path(__file__).resolve().parents[1]
_REINSTALL = "Reinstall tipsseg."


@dataclass(frozen=True, slots=True)
class FileReport:
    """What `verify` found for one file.

    Attributes:
        name: The name of the file within the model.
        path: Where the file is; None where it is absent.
        size: Bytes; None where it is absent.
        sha256: In hex; None where it is absent.
        state: "ok": the file is as it should be. "absent": it is not there. "unknown": neither the lock nor the cache states
            its hash, and only the hub could tell.
    """

    name: str
    path: Path | None
    size: int | None
    sha256: str | None
    state: Literal["ok", "absent", "unknown"]


def fetch(spec: ModelSpec, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
    """Verify the files of a model, and download the files that are absent. No network is used where all files are there.

    Args:
        spec: The model.
        quiet: No progress bars.
        keep_stamps: Whether stamps in the user's cache save hashing the files the next time.

    Returns:
        The folder of the files.

    Raises:
        DownloadError: Where a file cannot be downloaded.
        IntegrityError: For a wrong file, which is removed from the hub cache.
        WeightsError: Where a file cannot be read.
    """
    return _folder(spec, _ensure(spec, spec.files, quiet=quiet, keep_stamps=keep_stamps))


def locate(spec: ModelSpec) -> Path | None:
    """The folder of a model's files, not verified; None where a file is absent. Uses no network."""
    paths = [_find(spec, file) for file in spec.files]
    return None if paths[0] is None or None in paths else _folder(spec, paths[0])


def verify(spec: ModelSpec) -> list[FileReport]:
    """Hash every file that is there, whatever was verified before. Uses no network.

    Returns:
        A report for each file of the model.

    Raises:
        IntegrityError: For the first wrong file, after it was removed from the hub cache.
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
            sha256 = expected.digest if expected is not None and known else hash_file(path, "sha256")
            state: Literal["ok", "unknown"] = "unknown" if expected is None else "ok"
            reports.append(FileReport(file.name, path, path.stat().st_size, sha256, state))
    return reports


def resolve_hashes(spec: ModelSpec) -> ModelSpec:
    """Ask the hub for the size and the sha256 of every file of the pinned revision.

    The hub states the sha256 of large files. For small files it states the hash of their git blob: they are downloaded,
    compared with that, and hashed here. An embedded model has its hashes in the lock and comes back as it is.

    Returns:
        The same model with size and sha256 of every file.

    Raises:
        DownloadError: Where the hub cannot be asked.
        IntegrityError: Where the lock already states something else.
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
        return LockedFile(file.name, path.stat().st_size, hash_file(path, "sha256"))


def _ensure(spec: ModelSpec, files: Sequence[LockedFile], *, quiet: bool, keep_stamps: bool) -> Path:
    """Verify the files that are here, and download the others; returns the path of the first."""
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
    """The hash that a file must have: of the lock, else of the hub cache, else of an earlier verification; None without one."""
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
