"""Check packages, memory, hub cache and weights, without using the network or changing a model.

Functions import packages that may be broken, because a failed import is a diagnostic too.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tipsseg.errors import LockError, TipssegError, WeightsError
from tipsseg.types import ModelSpec
from tipsseg.util.printable import first_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """The result of one check.

    Attributes:
        state: "ok"; "note": worth knowing, but nothing is wrong; "fail": tipsseg does not work properly.
        what: The subject, for example "torch".
        detail: The finding.
        hint: The remedy, or "".
    """

    state: Literal["ok", "note", "fail"]
    what: str
    detail: str
    hint: str = ""


def verdict(what: str, sound: bool, detail: str, hint: str) -> Diagnostic:
    return Diagnostic("ok", what, detail) if sound else Diagnostic("fail", what, detail, hint)


def failure(what: str, error: TipssegError) -> Diagnostic:
    return Diagnostic("fail", what, error.message, error.hint)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


# ---- packages ----

# Distributions whose module name differs, and distributions that can replace another one.
_MODULES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
_SUBSTITUTES = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")}


def examine_packages(requirements: Sequence[str], version_of: Callable[[str], str]) -> Iterator[Diagnostic]:
    """Check that every required package is installed, new enough, and can be imported.

    Args:
        requirements: Requirements such as "numpy>=1.26,<3", as from importlib.metadata.requires; those of extras are ignored.
        version_of: A function that returns the version of a distribution, or raises PackageNotFoundError.
    """
    from packaging.requirements import Requirement

    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement, version_of)


def _package(requirement: Requirement, version_of: Callable[[str], str]) -> Diagnostic:
    from packaging.version import Version

    name = requirement.name
    floor = next((bound.version for bound in requirement.specifier if bound.operator == ">="), "0")
    hint = f"Run: pip install '{requirement}'"
    for distribution in (name, *_SUBSTITUTES.get(name, ())):
        with suppress(metadata.PackageNotFoundError):
            version = version_of(distribution)
            break
    else:
        return Diagnostic("fail", name, "is not installed", hint)
    # A pre-release such as 2.10.0rc1 counts as its release.
    if Version(Version(version).base_version) < Version(floor):
        return Diagnostic("fail", distribution, f"{version} is too old; tipsseg needs {floor} or newer", hint)
    module = _MODULES.get(name, name.replace("-", "_"))
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a missing shared library
        hint = f'Reinstall it, or its dependencies; python -c "import {module}" prints details.'
        return Diagnostic("fail", distribution, f"{version} cannot be imported: {first_line(error)}", hint)
    return Diagnostic("ok", distribution, f"{version} ({_torch_build()})" if name == "torch" else version)


def _torch_build() -> str:
    import torch

    if torch.version.hip:
        return f"ROCm {torch.version.hip} build"
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda} build"
    return "MPS build" if torch.backends.mps.is_built() else "CPU build"


# ---- memory and disk ----


def examine_memory() -> Diagnostic:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return Diagnostic("note", "memory", "unknown on this system")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    except (ValueError, OSError, StopIteration):
        return Diagnostic("note", "memory", f"{gigabytes(total)}; available memory unknown on this system")
    return Diagnostic("ok", "memory", f"{gigabytes(available)} of {gigabytes(total)} available")


def examine_cache() -> Iterator[Diagnostic]:
    """Check whether the hub cache is writable, its free space, and offline mode."""
    from huggingface_hub import constants

    try:
        yield _cache(Path(constants.HF_HUB_CACHE).absolute())
    except OSError as error:
        yield Diagnostic(
            "fail", "cache", f"{constants.HF_HUB_CACHE} cannot be used: {error.strerror or error}", _HF_HOME
        )
    if constants.HF_HUB_OFFLINE:
        yield Diagnostic("note", "offline mode", "on (HF_HUB_OFFLINE): no downloads")
    else:
        yield Diagnostic("ok", "offline mode", "off")


_HF_HOME = "Set HF_HOME to a writable folder."


def _cache(folder: Path) -> Diagnostic:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not existing.is_dir():
        return Diagnostic("fail", "cache", f"{folder} cannot be created: {existing} is not a folder", _HF_HOME)
    if os.access(existing, os.W_OK | os.X_OK):
        suffix = "" if existing == folder else " (to be created)"
        return Diagnostic("ok", "cache", f"{folder}{suffix}, {gigabytes(shutil.disk_usage(existing).free)} free")
    if existing == folder:
        return Diagnostic("note", "cache", f"{folder} is read-only: downloaded models work, downloads do not", _HF_HOME)
    return Diagnostic("fail", "cache", f"{folder} cannot be created: {existing} is read-only", _HF_HOME)


# ---- weights ----

_REINSTALL = "Reinstall tipsseg."


def examine_lock() -> tuple[Diagnostic, tuple[ModelSpec, ...]]:
    """Check weights.lock, and return its models, or () if it cannot be read."""
    from tipsseg.weights.lock import find_lock, read_lock

    try:
        path = find_lock()
        models = read_lock(path)
    except LockError as error:
        return failure("weights.lock", error), ()
    return Diagnostic("ok", "weights.lock", f"{path}, {len(models)} models"), tuple(models.values())


def examine_model(spec: ModelSpec) -> tuple[Diagnostic, Path | None]:
    """Check a model's files, and return their folder, or None if a file is missing or wrong.

    Files unchanged since the last check are not hashed again.
    """
    from tipsseg.weights.fetching import locate

    folder = locate(spec)
    diagnostic = _absent(spec) if folder is None else _present(spec, folder)
    return diagnostic, None if diagnostic.state == "fail" else folder


def _absent(spec: ModelSpec) -> Diagnostic:
    if spec.embedded is not None:
        return Diagnostic("fail", f"model {spec.id}", "is missing from the installation", _REINSTALL)
    return Diagnostic(
        "note",
        f"model {spec.id}",
        f"not downloaded; downloads are verified against {_origin_of_hashes(spec)}",
        _download(spec),
    )


def _present(spec: ModelSpec, folder: Path) -> Diagnostic:
    from tipsseg.weights.fetching import verify

    what = f"model {spec.id}"
    try:
        states = verify(spec, trust_stamps=True, keep_wrong=True)
    except WeightsError as error:
        return failure(what, error)
    if unknown := [name for name, state in states.items() if state == "unknown"]:
        detail = f"in {folder}; not verified, because the hash of {', '.join(unknown)} is unknown here"
        return Diagnostic("note", what, detail, f"With a network, run: tipsseg weights lock {spec.id}")
    return Diagnostic("ok", what, f"in {folder}; verified against {_origin_of_hashes(spec)}")


def _origin_of_hashes(spec: ModelSpec) -> str:
    pinned = all(file.sha256 is not None for file in spec.files)
    return "the hashes in weights.lock" if pinned else "the hashes on the hub"


def _download(spec: ModelSpec) -> str:
    return f"Run: tipsseg weights download {spec.id}"
