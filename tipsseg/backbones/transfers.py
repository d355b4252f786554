"""Copy arrays to a device and tensors from it, without waiting for the device's other work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device. Later work on the device sees the complete copy.

    Args:
        array: A writable array; torch warns about read-only ones. On a CPU the tensor shares its memory; on other devices the
            caller may change the array after this returns.
        device: The target device.
    """
    tensor = torch.from_numpy(array)
    # A copy from unpinned memory would wait for all work queued on the device.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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
        return [tensor.cpu().numpy() for tensor in self._tensors]
