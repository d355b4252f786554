"""Resolve device and dtype names to torch objects, and copy arrays to a device and back, without waiting for its other work.

Raise DeviceError if the machine does not support a device or a dtype.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.errors import DeviceError
from tipsseg.options import device_name, dtype_name
from tipsseg.util.text import pluralize

#: In int8, only the inputs and weights of linear layers have 8 bits.
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}

#: Words of torch, the CPU's allocator, cuBLAS, cuDNN and MPS for too little memory.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_ALLOC_FAILED", "Invalid buffer size")

#: Towers with fewer channels are narrow. Released models have 768 or more.
_NARROW = 384


def choose_device() -> tuple[torch.device, str]:
    """Return the device of "auto": CUDA, else MPS, else the CPU; and why other devices do not work, or "".

    A card may be too old for torch's kernels, or another process may hold it: one operation tells.
    """
    failed = list[str]()
    for kind, is_there in (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available)):
        if not is_there():
            continue
        device = torch.device(kind)
        try:
            with lock_of(device):
                torch.ones(1, device=device).add_(1).cpu()
            return device, ". ".join(failed)
        except RuntimeError as error:
            failed.append(f"Device {kind} does not work: {str(error).strip().splitlines()[0]}")
    return torch.device("cpu"), ". ".join(failed)


def resolve_device(device: object) -> torch.device:
    """Return the torch device with this name; for "auto", the choice of `choose_device`.

    Raise UsageError for an unknown name, DeviceError for an unavailable device.
    """
    name = device_name(device)
    if name == "auto":
        return choose_device()[0]
    kind, colon, index = name.partition(":")
    hint = "Use device auto to select an available device, or device cpu."
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = (
                f"torch {torch.__version__} was built without CUDA"
                if torch.version.cuda is None
                else "torch detects no usable GPU"
            )
            raise DeviceError(name, f"device {name!r} is not available: {built}", hint)
        if colon and int(index) >= torch.cuda.device_count():
            raise DeviceError(
                name,
                f"device {name!r} is not available: torch detects {pluralize(torch.cuda.device_count(), 'GPU')}",
                hint,
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "device 'mps' is not available: it requires macOS on Apple silicon", hint)
    return torch.device(name)


def resolve_dtype(dtype: object, device: torch.device) -> torch.dtype:
    """Return the torch dtype of a tower with this dtype, outside the linear layers of int8.

    "auto" is bfloat16 on a CUDA device with native support, float32 elsewhere. `choose_cpu_dtype` decides for a CPU.

    Raise UsageError for an unknown name, DeviceError if the device does not support the dtype.
    """
    name = dtype_name(dtype)
    # Cards of NVIDIA below compute capability 8.0 only emulate bfloat16, which is slow; the numbers of AMD's mean other things.
    native_bfloat16 = (
        device.type != "cuda" or torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    )
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and native_bfloat16 else torch.float32
    if name == "bfloat16" and not native_bfloat16:
        raise DeviceError(str(device), f"device {device} does not support bfloat16", "Use dtype float16 or float32.")
    if name == "int8" and device.type != "cpu":
        raise DeviceError(str(device), f"device {device} does not support int8", "Use device cpu, or another dtype.")
    if name == "int8" and not torch.backends.mkldnn.is_available():
        reason = f"torch {torch.__version__} was built without oneDNN, which multiplies in int8"
        raise DeviceError(str(device), reason, "Use dtype float32.")
    return _DTYPES[name]


def choose_cpu_dtype(channels: int) -> tuple[torch.dtype, str]:
    """Choose the dtype of a vision tower on a CPU by its instructions alone, because the dtype affects labels.

    tests/benchmarks/README.md has the times in bfloat16, by processor.

    Args:
        channels: The channels of the tower. A narrow one always gets float32: scoring takes as long as the tower.

    Returns:
        The dtype, and the reason for users; "" for a narrow tower.
    """
    if channels < _NARROW:
        return torch.float32, ""
    if name := bfloat16_instructions():
        return torch.bfloat16, f"as this CPU has {name}"
    return torch.float32, "as this CPU has neither AMX nor AVX512_BF16"


def bfloat16_instructions() -> str:
    """Return the instructions by which an x86 CPU multiplies in bfloat16: "AMX", else "AVX512_BF16"; "" without either."""
    # oneDNN's own answer is also True where it emulates them.
    if hasattr(torch.cpu, "get_capabilities"):
        flags: Mapping[str, object] = torch.cpu.get_capabilities()
        amx, avx512 = flags.get("amx_bf16"), flags.get("avx512_bf16")
    else:  # torch before 2.11
        amx, avx512 = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
    return "AMX" if amx else "AVX512_BF16" if avx512 else ""


@contextmanager
def as_device_error(
    device: torch.device, purpose: str = "for the scores", hint: str = "Use a smaller batch size, or device cpu."
) -> Iterator[None]:
    """Convert out-of-memory errors to DeviceError; other errors propagate."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(str(device), f"not enough memory on the device {purpose}", hint) from None


def is_out_of_memory(error: RuntimeError) -> bool:
    # CUDA's exception class was renamed between versions of torch; its libraries, MPS and the CPU raise a plain RuntimeError.
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def free_memory(device: torch.device) -> None:
    """Give memory that torch keeps for later back to a device. Call this outside of except blocks: their errors hold memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if device.type == "mps":
        torch.mps.empty_cache()


#: Two threads that use MPS at once abort the process, in current versions of torch.
MPS_LOCK = threading.RLock()


def lock_of(device: torch.device) -> AbstractContextManager[object]:
    """Return the lock to hold in each call of a device; nothing but MPS needs one."""
    return MPS_LOCK if device.type == "mps" else nullcontext()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device. Later work on the device sees the complete copy.

    Args:
        array: A writable array; torch warns about read-only ones. On a CPU the tensor shares its memory; on other devices the
            caller may change the array after this returns.
        device: The target device.
    """
    tensor = torch.from_numpy(array)
    # A copy from unpinned memory would wait for all work queued on the device.
    with lock_of(device):
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def record_event(device: torch.device) -> torch.cuda.Event | torch.mps.Event | None:
    """Return an event that is done, see its `query`, once the device has done all work so far; None for a CPU."""
    if device.type == "cuda":
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return event
    if device.type == "mps":
        mark = torch.mps.Event()
        mark.record()
        return mark
    return None


class HostCopy:
    """A copy of tensors from a device to the host that runs in the background."""

    def __init__(self, *tensors: Tensor) -> None:
        """Start the copy. All tensors must be on one device, which may still be computing them."""
        self._event: torch.cuda.Event | None = None
        self._tensors: Sequence[Tensor] = tensors
        device = tensors[0].device
        if device.type == "cuda":
            # torch copies in the background only to pinned memory.
            self._tensors = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
            for target, source in zip(self._tensors, tensors, strict=True):
                target.copy_(source, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)  # a waiting thread sleeps instead of spinning on a core
            self._event.record(torch.cuda.current_stream(device))

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for the copy and return the arrays. Safe to call from several threads."""
        if self._event is not None:
            self._event.synchronize()
        with lock_of(self._tensors[0].device):
            return [tensor.cpu().numpy() for tensor in self._tensors]
