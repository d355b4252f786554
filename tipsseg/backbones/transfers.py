"""Send arrays to a device and fetch tensors from it, without waiting for what the device computes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """Send an array to a device; what the device computes with it comes after it.

    Args:
        array: Writable, as torch warns of others. It may be changed as soon as this returns, unless the device is a CPU: then the
            tensor has the same memory.
        device: The device.
    """
    tensor = torch.from_numpy(array)
    # From other memory the copy would wait for all that the device has to do.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Arriving:
    """Tensors on their way from a device to the host."""

    def __init__(self, *tensors: Tensor) -> None:
        """Begin to copy. The tensors must be on one device, and may still be under way there."""
        self._event: torch.cuda.Event | None = None
        self._tensors: Sequence[Tensor] = tensors
        device = tensors[0].device
        if device.type == "cuda":
            # From pinned memory on, and not until now, torch copies while others compute.
            self._tensors = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
            for target, source in zip(self._tensors, tensors, strict=True):
                target.copy_(source, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)  # who waits sleeps, and leaves the core to others
            self._event.record(torch.cuda.current_stream(device))

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for the tensors; may be called from several threads."""
        if self._event is not None:
            self._event.synchronize()
        return [tensor.cpu().numpy() for tensor in self._tensors]
