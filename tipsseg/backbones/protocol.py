"""Define the interface of a vision-language model: windows and phrases in, unit vectors out."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class WindowFeatures:
    """Vision tower output for B pictures of the same size.

    Attributes:
        patches: [B, h, w, D] float32, one unit vector per patch, comparable with phrase vectors.
        class_tokens: [B, C, D] float32, C unit vectors per picture.
    """

    patches: Tensor
    class_tokens: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a model, which are known before it is loaded.

    Attributes:
        native_size: Side of the model's square window in pixels.
        patch_size: Side of a patch in pixels.
        embed_dim: D, the length of all vectors.
        class_tokens: C, the number of class tokens of a window.
        temperature: Softmax temperature: logits are cosine / temperature.
    """

    native_size: int
    patch_size: int
    embed_dim: int
    class_tokens: int
    temperature: float


class Architecture(Protocol):
    """A kind of model: a module with these functions (see `registry.ARCHITECTURES`)."""

    def read_sizes(self, folder: Path) -> Sizes:
        """Read the sizes of the model in a folder. Raise CheckpointError if its files are invalid."""

    def open_backbone(self, folder: Path, device: str, dtype: str, batch_size: int | None, *, lazy: bool) -> Backbone:
        """Open the model in a folder (see `registry.open_backbone`)."""


class Backbone(ABC):
    """A model's two towers on one device. What `__init__` does not take has a default.

    Attributes:
        folder: Folder of the model's files.
        device_name: "cpu", "cuda:0" or "mps".
        dtype_name: Dtype of the computation: "float32", "bfloat16", "float16" or "int8".
        dtype_reason: Reason for the dtype, if the CPU decided it: "as this CPU has AVX512_BF16"; else "".
        native_size: Side of the model's square window in pixels.
        patch_size: Side of a patch in pixels.
        embed_dim: D, the length of all vectors.
        temperature: Softmax temperature: logits are cosine / temperature.
        batch_size: Number of windows per pass of the vision tower, halved when the device runs out of memory.
        on_less_memory: Called with the new batch size after each halving.
        at_work: Lock to hold while computing with torch. On a CPU, competing torch threads only wait for each other; on MPS, two
            threads may not use the device at once.
    """

    dtype_reason = ""
    batch_size = 1

    def __init__(self, folder: Path, device_name: str, dtype_name: str, sizes: Sizes) -> None:
        self.folder, self.device_name, self.dtype_name = folder, device_name, dtype_name
        self.native_size, self.patch_size = sizes.native_size, sizes.patch_size
        self.embed_dim, self.temperature = sizes.embed_dim, sizes.temperature
        self.on_less_memory: Callable[[int], None] = lambda _: None
        self.at_work: AbstractContextManager[object] = threading.Lock()

    @cached_property
    def device(self) -> torch.device:
        """The torch device. Reading it may import torch."""
        import torch

        return torch.device(self.device_name)

    @abstractmethod
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Encode phrases, averaging over the templates.

        Args:
            phrases: P texts.
            templates: Texts with "{}" as the placeholder for the phrase.

        Returns:
            [P, D] float32 unit vectors, one per phrase, on the device.
        """

    @abstractmethod
    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        """Encode windows, `batch_size` at a time. The result for a window does not depend on the others in its batch.

        A GPU may still be computing when this returns. A CPU encodes windows in parallel and divides its threads between them.
        Its rounding may depend on the number of windows, so pass all windows of one image together.

        Args:
            windows: B pictures, each [side, side, 3] uint8 RGB.

        Returns:
            The window features, on the device.

        Raises:
            DeviceError: The device has too little memory for a single window.
        """

    @contextmanager
    def at_device(self, purpose: str = "for the scores") -> Iterator[None]:
        """Use a GPU: hold `at_work`. Nothing on a CPU. Raise DeviceError if the device has too little memory for a purpose."""
        if self.device_name == "cpu":
            yield
            return
        from tipsseg.backbones.devices import as_device_error

        with self.at_work, as_device_error(self.device, purpose):
            yield

    def is_busy(self) -> bool:
        """Return True while the device computes what `encode_windows` returned, without waiting. A CPU has computed it."""
        return False

    @abstractmethod
    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        """Encode an image in one piece, stretched to `size`.

        Args:
            image: [H, W, 3] uint8 RGB.
            size: (height, width) in pixels, multiples of the patch size.

        Returns:
            The features on the device, with B = 1.

        Raises:
            DeviceError: The device has too little memory for the image.
        """
