"""Check the installation, the devices and the numbers of a model, without using the network or changing a model.

Functions import packages that may be broken, because a failed import is a diagnostic too.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import DeviceError, LockError, TipssegError, WeightsError, Words
from tipsseg.options import device_name, dtype_name
from tipsseg.types import ModelSpec
from tipsseg.util.text import Diagnostic, first_line
from tipsseg.weights import lock
from tipsseg.weights.fetching import locate, verify
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    import torch
    from packaging.specifiers import SpecifierSet

# Distributions whose module name differs, and distributions that can replace another one.
_MODULES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
_SUBSTITUTES = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")}

_REINSTALL = "Reinstall tipsseg."
_OTHER_DEVICE = Words("Update the driver and torch, or use {device}=cpu {dtype}=float32.")


def examine(device: str, dtype: str, model: str | None = None) -> Iterator[Diagnostic]:
    """Check packages, weights, devices and numbers, also of `model`. Download nothing, and change no model.

    Every fault is a diagnostic, except that an unknown device, dtype or model raises UsageError before the first diagnostic.
    """
    device, dtype = device_name(device), dtype_name(dtype)
    source = None if model is None else find_model(model)
    yield Diagnostic("ok", "tipsseg", f"{metadata.version('tipsseg')} in {Path(__file__).parents[1]}")
    yield Diagnostic("ok", "Python", f"{platform.python_version()} on {platform.platform()}")
    packages = list(_packages())
    yield from packages
    if any(diagnostic.state == "fail" for diagnostic in packages):
        yield Diagnostic("note", "other checks", "skipped, because they require the packages above")
        return
    models: dict[str, ModelSpec] = {}
    try:
        path = lock.find_lock()
        models = lock.read_lock(path)
        yield Diagnostic("ok", "weights.lock", f"{path}, {len(models)} models")
    except LockError as error:
        yield _failure("weights.lock", error)
    embedded: Path | None = None
    for spec in models.values():
        diagnostic, folder = _model(spec)
        yield diagnostic
        if spec.embedded is not None:
            embedded = embedded or folder
    yield from _devices()
    if embedded is None:
        yield Diagnostic("note", "numbers", "not compared, because the embedded model is missing")
        return
    yield _numbers("numbers", embedded, device, dtype, limited=True)
    if source is not None:
        folder = Path(source.name) if source.spec is None else locate(source.spec)
        if folder is None:
            yield Diagnostic("fail", f"numbers of {model}", "no weights", f"Run: tipsseg weights download {model}")
        else:
            yield _numbers(f"numbers of {model}", folder, device, dtype, limited=False)


def _packages() -> Iterator[Diagnostic]:
    """Check that every required package is installed, has a version that fits, and can be imported."""
    from packaging.requirements import Requirement

    for needed in map(Requirement, metadata.requires("tipsseg") or []):
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield _package(needed.name, needed.specifier)


def _package(name: str, specifier: SpecifierSet) -> Diagnostic:
    hint = f"Run: pip install '{name}{specifier}'"
    for distribution in (name, *_SUBSTITUTES.get(name, ())):
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(distribution)
            break
    else:
        return Diagnostic("fail", name, "is not installed", hint)
    if not specifier.contains(version, prereleases=True):
        return Diagnostic("fail", distribution, f"{version} is not supported; tipsseg requires {specifier}", hint)
    module = _MODULES.get(name, name.replace("-", "_"))
    try:
        imported = importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a missing shared library
        hint = f'Reinstall it, or its dependencies; python -c "import {module}" prints details.'
        return Diagnostic("fail", distribution, f"{version} cannot be imported: {first_line(error)}", hint)
    # torch's own version ends with its build: "+cpu", "+cu126", "+rocm6.4".
    return Diagnostic("ok", distribution, imported.__version__ if name == "torch" else version)


def _model(spec: ModelSpec) -> tuple[Diagnostic, Path | None]:
    """Check a model's files, and return their folder, or None if a file is missing or wrong.

    Unlike `fetching.fetch`, do not ask the hub, and keep a wrong file. Files unchanged since the last check are not hashed again.
    """
    what, download = f"model {spec.id}", f"Run: tipsseg weights download {spec.id}"
    folder = locate(spec)
    if folder is None and spec.embedded is not None:
        return Diagnostic("fail", what, "is missing from the installation", _REINSTALL), None
    if folder is None:
        return Diagnostic("note", what, "not downloaded", download), None
    try:
        states = verify(spec, trust_stamps=True, keep_wrong=True)
    except WeightsError as error:
        return _failure(what, error), None
    if unknown := [name for name, state in states.items() if state == "unknown"]:
        detail = f"in {folder}; not verified, because the hash of {', '.join(unknown)} is unknown here"
        return Diagnostic("note", what, detail, f"With a network, run: tipsseg weights lock {spec.id}"), folder
    return Diagnostic("ok", what, f"in {folder}; verified by hash"), folder


def _devices() -> Iterator[Diagnostic]:
    """Describe the devices, and multiply small matrices on each in each dtype."""
    import torch

    from tipsseg.backbones.devices import resolve_device

    for kind in ("cpu", "cuda", "mps"):
        try:
            resolve_device(kind)
        except DeviceError as error:
            yield Diagnostic("note", kind, error.message)
            continue
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if kind == "cuda" else [kind]
        yield from map(_device, map(torch.device, names))


def _device(device: torch.device) -> Diagnostic:
    import torch

    dtypes = ["float32", "bfloat16", "float16", *(["int8"] if device.type == "cpu" else [])]
    hint = Words("Check the driver, and that torch was built for this device. Or use {device}=cpu.")
    try:
        facts = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        if device.type == "cuda":
            card = torch.cuda.get_device_properties(device)
            free, total = (f"{size / 1e9:.1f} GB" for size in torch.cuda.mem_get_info(device))
            facts = f"{card.name}, {free} of {total} free, compute capability {card.major}.{card.minor}"
        trials = {dtype: _trial(device, dtype) for dtype in dtypes}
    except RuntimeError as error:
        return Diagnostic("fail", str(device), first_line(error), hint)
    detail = "; ".join([facts, ", ".join(f"{dtype} {result}" for dtype, result in trials.items())])
    return _verdict(str(device), trials["float32"].startswith("works"), detail, hint)


def _trial(device: torch.device, dtype: str) -> str:
    import torch

    from tipsseg.backbones.devices import bfloat16_instructions, resolve_dtype
    from tipsseg.backbones.tipsv2.int8 import weight_limit

    try:
        ones = torch.ones(16, 16, device=device, dtype=resolve_dtype(dtype, device))
        if not (ones @ ones == 16).all():
            return "gives wrong results"
        if dtype == "int8":
            return "works" if weight_limit() == 127 else "works (7-bit weights, without VNNI instructions)"
    except DeviceError as error:
        return "is not used (" + error.message + ")"
    except (RuntimeError, TypeError) as error:
        return f"does not work ({first_line(error)})"
    if device.type != "cpu" or dtype != "bfloat16":
        return "works"
    return f"works (with {bfloat16_instructions() or 'neither AMX nor AVX512_BF16'})"


def _numbers(what: str, folder: Path, device: str, dtype: str, *, limited: bool) -> Diagnostic:
    """Compare a model with the device and the dtype with the CPU in float32. The limits suit the embedded model."""
    from tipsseg.backbones.registry import open_backbone
    from tipsseg.labelling import golden

    try:
        model = open_backbone(folder, device, dtype, lazy=True)
        agreement = golden.compare_devices(folder, device, dtype)
    except (TipssegError, RuntimeError) as error:
        return _failure(what, error)
    detail = (
        f"{model.device_name} in {model.dtype_name} against cpu in float32: cosines differ by up to "
        f"{agreement.difference:.1e}, the same phrase wins in {agreement.same_winner:.2%} of the patches of a synthetic picture"
    )
    limit = golden.LIMITS[model.dtype_name] if limited else golden.Agreement(math.inf, 0)
    if limited:
        detail += f" (limits {limit.difference:.1e} and {limit.same_winner:.1%})"
    return _verdict(what, agreement.within(limit), detail, _OTHER_DEVICE)


def _failure(what: str, error: TipssegError | RuntimeError) -> Diagnostic:
    if isinstance(error, TipssegError):
        return Diagnostic("fail", what, error.message, error.hint)
    return Diagnostic("fail", what, f"does not run: {first_line(error)}", _OTHER_DEVICE)


def _verdict(what: str, sound: bool, detail: str, hint: str) -> Diagnostic:
    return Diagnostic("ok", what, detail) if sound else Diagnostic("fail", what, detail, hint)
