"""The report of `tipsseg doctor`: checks of the installation, the devices and the numbers that a model computes. Uses no network.

torch, and every module that needs it, is imported inside the functions: a broken torch is a diagnostic too.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import DeviceError, TipssegError
from tipsseg.runs.doctor import installation
from tipsseg.runs.doctor.installation import Diagnostic, failure, gigabytes
from tipsseg.util.printable import first_line

if TYPE_CHECKING:
    import torch

    from tipsseg.labelling.golden import Published


def examine(device: str, dtype: str, image: Path | None = None) -> Iterator[Diagnostic]:
    """Check packages, memory, the cache, weights and devices, one after the other, and then some numbers.

    Downloads nothing, and changes no model.

    Args:
        device: The device whose numbers are compared with the numbers of the CPU, as `load` takes it.
        dtype: The dtype of the computation, as `load` takes it.
        image: COCO val2017 000000039769.jpg, for the published numbers of a picture.

    Yields:
        A diagnostic for each check.

    Raises:
        UsageError: Before the first diagnostic, for an unknown device or dtype. Anything else that is wrong is a diagnostic.
    """
    with suppress(ImportError, OSError):  # what cannot be imported is a diagnostic below
        _check_names(device, dtype)
    yield Diagnostic("ok", "tipsseg", f"{metadata.version('tipsseg')} in {Path(__file__).parents[2]}")
    yield Diagnostic("ok", "Python", f"{platform.python_version()} on {platform.platform()}")
    whole = True
    for diagnostic in installation.examine_packages(metadata.requires("tipsseg") or [], metadata.version):
        yield diagnostic
        whole = whole and diagnostic.state != "fail"
    yield installation.examine_memory()
    if not whole:
        yield Diagnostic("note", "all else", "was left out, because it needs the packages above")
        return
    yield from installation.examine_cache()
    diagnostic, models = installation.examine_lock()
    yield diagnostic
    folders: dict[str, Path] = {}
    for spec in models:
        diagnostic, folder = installation.examine_model(spec)
        yield diagnostic
        if folder is not None:
            folders[spec.id] = folder
    yield from _devices()
    yield _loops()
    embedded = [spec.id for spec in models if spec.embedded is not None and spec.id in folders]
    folder = folders[embedded[0]] if embedded else None
    yield from _recorded(folder)
    yield _numbers(folder, device, dtype)
    yield from _published(folders, image)


def _check_names(device: str, dtype: str) -> None:
    from tipsseg.backbones.devices import resolve_device, resolve_dtype

    resolve_dtype(dtype, resolve_device("cpu"))
    with suppress(DeviceError):
        resolve_device(device)


def _loops() -> Diagnostic:
    """Whether labels are made from cosines by loops that numba compiled."""
    from tipsseg.labelling.scoring.compiled.match import SWITCH, loops

    if loops() is not None:
        return Diagnostic(
            "ok", "numba", f"{metadata.version('numba')}; makes labels from the model's features on a CPU"
        )
    if os.environ.get(SWITCH) == "0":
        return Diagnostic("note", "numba", f"is off ({SWITCH}=0): numpy makes the same labels, and takes longer")
    try:
        version = metadata.version("numba")
    except metadata.PackageNotFoundError:
        detail = "is not installed: numpy makes the same labels, and takes longer"
        return Diagnostic("note", "numba", detail, "Run: pip install 'tipsseg[numba]'")
    detail = f"{version} cannot be used: numpy makes the same labels, and takes longer"
    hint = 'python -c "import numba" tells more; it also needs a cache folder that it can write to.'
    return Diagnostic("note", "numba", detail, hint)


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
    """Why a device is not there; empty where it is."""
    from tipsseg.backbones.devices import resolve_device

    try:
        resolve_device(kind)
    except DeviceError as error:
        return error.message
    return ""


def _device(device: torch.device, describe: Callable[[], str]) -> Diagnostic:
    try:
        description = describe()
        trials = {name: _trial(device, name) for name in ("float32", "bfloat16", "float16")}
    except RuntimeError as error:
        return Diagnostic("fail", str(device), first_line(error), "Check the driver, or use argument `device`=cpu.")
    dtypes = ", ".join(f"{name} {result}" for name, result in trials.items())
    sound = trials["float32"].startswith("works")
    hint = (
        "" if sound else "Check the driver, and that torch was built for this device; or use another argument `device`."
    )
    return Diagnostic("ok" if sound else "fail", str(device), f"{description}; {dtypes}", hint)


def _gpu(device: torch.device) -> str:
    import torch

    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return f"{facts.name}, {gigabytes(free)} of {gigabytes(total)} free, compute capability {facts.major}.{facts.minor}"


def _trial(device: torch.device, dtype: str) -> str:
    """What came of multiplying two small matrices."""
    import torch

    from tipsseg.backbones.devices import resolve_dtype

    try:
        ones = torch.ones(16, 16, device=device, dtype=resolve_dtype(dtype, device))
        right = bool((ones @ ones == 16).all())
    except DeviceError as error:
        return f"is not used ({error.message})"
    except (RuntimeError, TypeError) as error:
        return f"does not work ({first_line(error)})"
    if not right:
        return "computes wrongly"
    return f"works{_emulated()}" if device.type == "cpu" and dtype == "bfloat16" else "works"


def _emulated() -> str:
    """Whether the CPU has instructions for bfloat16, where this version of torch tells."""
    import torch

    from tipsseg.backbones.devices import lacks_bfloat16_instructions

    if lacks_bfloat16_instructions():
        return " (emulated, slow)"
    return " (native)" if hasattr(torch.cpu, "get_capabilities") else ""


# ---- numbers ----


def _numbers(folder: Path | None, device: str, dtype: str) -> Diagnostic:
    """The chosen device and dtype against the CPU in float32, by the embedded model."""
    from tipsseg.backbones.devices import resolve_device, resolve_dtype
    from tipsseg.labelling import golden

    what = "numbers"
    try:
        chosen = resolve_device(device)
        precision = resolve_dtype(dtype, chosen)
        if folder is None:
            return Diagnostic("note", what, "not compared, because that takes the embedded model")
        found = golden.agreement(folder, device, dtype)
    except TipssegError as error:
        return failure(what, error)
    except RuntimeError as error:
        return Diagnostic(
            "fail", what, f"it does not run: {first_line(error)}", "Try argument `device`=cpu argument `dtype`=float32."
        )
    limit = golden.LIMITS[precision]
    detail = (
        f"{chosen} in {str(precision).removeprefix('torch.')} against cpu in float32: cosines differ by up to "
        f"{found.difference:.1e} (limit {limit.difference:.1e}), the same phrase wins in {found.same_winner:.1%} of the "
        f"patches (limit {limit.same_winner:.1%})"
    )
    if found.within(limit):
        return Diagnostic("ok", what, detail)
    return Diagnostic(
        "fail", what, detail, "Update the driver and torch, or use argument `device`=cpu or argument `dtype`=float32."
    )


def _recorded(folder: Path | None) -> Iterator[Diagnostic]:
    """The CPU in float32 against what another CPU computed."""
    from tipsseg.labelling import golden

    if folder is None:
        return
    what = "recorded numbers"
    try:
        result = golden.check_recorded(folder)
    except TipssegError as error:
        yield failure(what, error)
        return
    except RuntimeError as error:
        yield Diagnostic("fail", what, f"it does not run: {first_line(error)}")
        return
    detail = (
        f"cpu in float32 differs by up to {result.difference:.1e} from them (tolerance {golden.RECORDED.tolerance:.0e})"
    )
    hint = (
        "" if result.agrees else "This build of torch computes something else on this CPU: do not trust these labels."
    )
    yield Diagnostic("ok" if result.agrees else "fail", what, detail, hint)


def _published(folders: Mapping[str, Path], image: Path | None) -> Iterator[Diagnostic]:
    from tipsseg.labelling import golden

    folder = folders.get(golden.B14_ID)
    if folder is None:
        detail = f"not checked, because they are for {golden.B14_ID}, which is not here"
        yield Diagnostic("note", "golden values", detail, f"Run: tipsseg weights download {golden.B14_ID}")
        return
    yield from check_golden(folder, image, golden.B14)


def check_golden(folder: Path, image: Path | None, published: Published) -> Iterator[Diagnostic]:
    """Compare a model with what is published of it; one diagnostic per row of numbers."""
    from tipsseg.labelling import golden

    hint = "The model's files, torch or a kernel of it do not give the published numbers: do not trust these labels."
    if image is not None:
        hint += f" For the numbers of a picture, {image} must be COCO val2017 000000039769.jpg as published."
    try:
        for table, result in golden.check_published(folder, image, published):
            what = f"golden values, {table.name}"
            detail = (
                f"differ by up to {result.difference:.1e} from the published ones (tolerance {table.tolerance:.0e})"
            )
            yield Diagnostic("ok", what, detail) if result.agrees else Diagnostic("fail", what, detail, hint)
    except TipssegError as error:
        yield failure("golden values", error)
    except RuntimeError as error:  # no memory
        yield Diagnostic("fail", "golden values", f"cannot be computed: {first_line(error)}")
    if image is None:
        detail = "those of a picture were left out"
        yield Diagnostic("note", "golden values", detail, "Give COCO val2017 000000039769.jpg with argument `image`.")
