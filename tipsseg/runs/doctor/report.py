"""Check the installation, the devices and the numbers of a model, without using the network.

Functions import torch and modules that need it, because a broken torch is a diagnostic too.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import DeviceError, TipssegError
from tipsseg.runs.doctor import installation
from tipsseg.runs.doctor.installation import Diagnostic, failure, gigabytes, verdict
from tipsseg.util.printable import first_line
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    import torch


#: What the numbers of other devices and dtypes are compared with.
_EXACT = "cpu in float32"


def examine(device: str, dtype: str, model: str | None = None) -> Iterator[Diagnostic]:
    """Check packages, memory, cache, weights, devices and numbers, also of `model`. Download nothing, and change no model.

    Every fault is a diagnostic, except that an unknown device or dtype raises UsageError before the first diagnostic.
    """
    with suppress(ImportError, OSError):  # a failed import is a diagnostic below
        _check_names(device, dtype)
    source = None if model is None else find_model(model)
    yield Diagnostic("ok", "tipsseg", f"{metadata.version('tipsseg')} in {Path(__file__).parents[2]}")
    yield Diagnostic("ok", "Python", f"{platform.python_version()} on {platform.platform()}")
    whole = True
    for diagnostic in installation.examine_packages(metadata.requires("tipsseg") or [], metadata.version):
        yield diagnostic
        whole = whole and diagnostic.state != "fail"
    yield installation.examine_memory()
    if not whole:
        yield Diagnostic("note", "other checks", "skipped, because they need the packages above")
        return
    yield from installation.examine_cache()
    diagnostic, models = installation.examine_lock()
    yield diagnostic
    embedded: Path | None = None
    for spec in models:
        diagnostic, folder = installation.examine_model(spec)
        yield diagnostic
        if spec.embedded is not None:
            embedded = embedded or folder
    yield from _devices()
    if embedded is None:
        yield Diagnostic("note", "numbers", "not compared, because the embedded model is missing")
        return
    yield _computed("recorded numbers", "", partial(_recorded, embedded))
    hint = "Try argument `device`=cpu argument `dtype`=float32."
    yield _computed("numbers", hint, partial(_numbers, embedded, device, dtype))
    if source is not None and not source.is_here:
        yield Diagnostic("fail", f"numbers of {model}", "no weights", f"Run: tipsseg weights download {model}")
    elif source is not None:
        yield _computed(
            f"numbers of {model}", hint, partial(_numbers_of_model, source.fetch(quiet=True), device, dtype)
        )


def _check_names(device: str, dtype: str) -> None:
    from tipsseg.backbones.devices import resolve_device, resolve_dtype

    resolve_dtype(dtype, resolve_device("cpu"))
    with suppress(DeviceError):
        resolve_device(device)


# ---- devices ----


def _devices() -> Iterator[Diagnostic]:
    import torch

    cpu = torch.device("cpu")
    yield _device(cpu, lambda: f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    for kind in ("cuda", "mps"):
        absence = _absence(kind)
        if absence:
            yield Diagnostic("note", kind, absence)
        elif kind == "cuda":
            for index in range(torch.cuda.device_count()):
                gpu = torch.device("cuda", index)
                yield _device(gpu, partial(_gpu, gpu))
        else:
            yield _device(torch.device(kind), lambda: "available")


def _absence(kind: str) -> str:
    """Return the reason why a device is missing, or ""."""
    from tipsseg.backbones.devices import resolve_device

    try:
        resolve_device(kind)
    except DeviceError as error:
        return error.message
    return ""


def _device(device: torch.device, describe: Callable[[], str]) -> Diagnostic:
    try:
        description = describe()
        names = ("float32", "bfloat16", "float16", *(["int8"] if device.type == "cpu" else []))
        trials = {name: _trial(device, name) for name in names}
    except RuntimeError as error:
        return Diagnostic("fail", str(device), first_line(error), "Check the driver, or use argument `device`=cpu.")
    dtypes = ", ".join(f"{name} {result}" for name, result in trials.items())
    hint = (
        "Check the driver, and that torch was built for this device; or choose another device with argument `device`."
    )
    return verdict(str(device), trials["float32"].startswith("works"), f"{description}; {dtypes}", hint)


def _gpu(device: torch.device) -> str:
    import torch

    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return f"{facts.name}, {gigabytes(free)} of {gigabytes(total)} free, compute capability {facts.major}.{facts.minor}"


def _trial(device: torch.device, dtype: str) -> str:
    """Multiply two small matrices, and return the outcome."""
    import torch

    from tipsseg.backbones.devices import resolve_dtype

    try:
        torch_dtype = resolve_dtype(dtype, device)
        if dtype == "int8":
            from tipsseg.backbones.int8 import weight_limit

            return "works" if weight_limit() == 127 else "works (7-bit weights, without VNNI instructions)"
        ones = torch.ones(16, 16, device=device, dtype=torch_dtype)
        right = bool((ones @ ones == 16).all())
    except DeviceError as error:
        return f"is not used ({error.message})"
    except (RuntimeError, TypeError) as error:
        return f"does not work ({first_line(error)})"
    if not right:
        return "gives wrong results"
    return f"works{_emulated()}" if device.type == "cpu" and dtype == "bfloat16" else "works"


def _emulated() -> str:
    import torch

    from tipsseg.backbones.devices import emulates_bfloat16, has_amx

    if emulates_bfloat16():
        return " (emulated, slow)"
    if not hasattr(torch.cpu, "get_capabilities"):
        return ""
    return " (with AMX)" if has_amx() else " (without AMX)"


# ---- numbers ----


def _computed(what: str, hint: str, compute: Callable[[str], Diagnostic]) -> Diagnostic:
    try:
        return compute(what)
    except TipssegError as error:
        return failure(what, error)
    except RuntimeError as error:
        return Diagnostic("fail", what, f"does not run: {first_line(error)}", hint)


def _recorded(folder: Path, what: str) -> Diagnostic:
    """Compare the CPU in float32 with numbers recorded on another CPU."""
    from tipsseg.labelling import golden

    difference = golden.difference_from_record(folder)
    detail = f"cpu in float32 differs from them by up to {difference:.1e} (tolerance {golden.RECORDED_TOLERANCE:.0e})"
    hint = "This build of torch computes wrong numbers on this CPU; do not trust its labels."
    return verdict(what, difference <= golden.RECORDED_TOLERANCE, detail, hint)


def _numbers(folder: Path, device: str, dtype: str, what: str) -> Diagnostic:
    """Run the embedded model with the device and the dtype, and compare the numbers with the CPU in float32."""
    from tipsseg.labelling import golden

    place, precision = _place(folder, device, dtype)
    if place == _EXACT:
        return _exact(what)
    agreement, limit = golden.compare_devices(folder, device, dtype), golden.LIMITS[precision]
    detail = (
        f"{place} against {_EXACT}: cosines differ by up to "
        f"{agreement.difference:.1e} (limit {limit.difference:.1e}), the same phrase wins in {agreement.same_winner:.1%} of the "
        f"patches (limit {limit.same_winner:.1%})"
    )
    hint = "Update the driver and torch, or use argument `device`=cpu or argument `dtype`=float32."
    return verdict(what, agreement.within(limit), detail, hint)


def _numbers_of_model(folder: Path, device: str, dtype: str, what: str) -> Diagnostic:
    """Compare a model like `_numbers`, but without limits: they are those of the embedded model."""
    from tipsseg.labelling import golden

    place, _ = _place(folder, device, dtype)
    if place == _EXACT:
        return _exact(what)
    agreement = golden.compare_devices(folder, device, dtype)
    detail = (
        f"{place} against {_EXACT}: cosines differ by up to {agreement.difference:.1e}, the same phrase wins in "
        f"{agreement.same_winner:.2%} of the patches of a drawn picture"
    )
    return verdict(
        what, not math.isnan(agreement.difference), detail, "The model computes no numbers in this dtype; use another."
    )


def _exact(what: str) -> Diagnostic:
    return Diagnostic("note", what, f"{_EXACT}; set argument `device` or argument `dtype` to compare another with it")


def _place(folder: Path, device: str, dtype: str) -> tuple[str, str]:
    """Return the device and the dtype that a model would compute with, as text, and the dtype."""
    from tipsseg.backbones.registry import open_backbone

    model = open_backbone(folder, device, dtype, lazy=True)
    return f"{model.device_name} in {model.dtype_name}", model.dtype_name
