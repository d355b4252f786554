"""Resolve names of devices and dtypes to torch's, with clear errors for what this machine does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from tipsseg.errors import DeviceError
from tipsseg.options import device_name, dtype_name

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: object) -> torch.device:
    """Resolve a device; "auto" takes CUDA before MPS before CPU.

    Raises UsageError for an unknown name, DeviceError for a device that is absent.
    """
    name = device_name(device)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    hint = "Use device auto to take what there is, or device cpu."
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = (
                f"torch {torch.__version__} was built without CUDA"
                if torch.version.cuda is None
                else "no usable GPU found"
            )
            raise DeviceError(name, f"device {name!r} is not available: {built}", hint)
        if colon and int(index) >= torch.cuda.device_count():
            raise DeviceError(
                name, f"device {name!r} is not available: there are {torch.cuda.device_count()} GPUs", hint
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "device 'mps' is not available: it needs macOS on Apple silicon", hint)
    return torch.device(name)


def resolve_dtype(dtype: object, device: torch.device) -> torch.dtype:
    """Resolve a dtype; "auto" is float32, but bfloat16 on a CUDA device that has it. On a CPU, see `auto_dtype` for "auto".

    Raises UsageError for an unknown name, DeviceError if the device cannot compute in it.
    """
    name = dtype_name(dtype)
    # Older cards emulate bfloat16, slowly.
    native_bfloat16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and native_bfloat16 else torch.float32
    if name == "bfloat16" and not native_bfloat16:
        raise DeviceError(str(device), f"device {device} has no bfloat16", "Use dtype float16 or float32.")
    return _DTYPES[name]


def lacks_bfloat16_instructions() -> bool:
    """Tell whether the CPU emulates bfloat16, without instructions for it. False if this version of torch does not tell."""
    found = _instructions()
    return bool(found) and not any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def multiplies_bfloat16() -> bool:
    """Tell whether the CPU's instructions for bfloat16 are AVX-512's alone, not AMX's. False if torch does not tell.

    On such an AMD EPYC torch's own attention in bfloat16 takes longer than its two matrix products and a softmax. No other
    processor was measured.
    """
    found = _instructions()
    return bool(found.get("avx512_bf16")) and not found.get("amx_bf16")


def _instructions() -> Mapping[str, object]:
    get_capabilities: Callable[[], Mapping[str, object]] | None = getattr(torch.cpu, "get_capabilities", None)
    return {} if get_capabilities is None else get_capabilities()


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Raise DeviceError if the memory of the device does not hold what is computed; other errors go through."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise DeviceError(
            str(device), "not enough memory on the device for the scores", "Use a smaller batch size, or device cpu."
        ) from None


def out_of_memory(error: RuntimeError) -> bool:
    # The class that CUDA raises has had several names; MPS and CPU have none.
    return any(words in str(error) for words in ("out of memory", "can't allocate memory"))
