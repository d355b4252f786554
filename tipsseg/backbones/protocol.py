"""The interface of a model that images can be labelled with: windows and phrases in, unit vectors out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class WindowFeatures:
    """The output of the vision tower for B pictures of one size.

    Attributes:
        patches: [B, h, w, D] float32 of unit length, one vector for each patch, to be compared with those of phrases.
        class_tokens: [B, C, D] float32 of unit length: C vectors for each picture as a whole.
    """

    patches: Tensor
    class_tokens: Tensor


class Backbone(Protocol):
    """The two towers of a model on one device.

    Attributes:
        folder: The model was loaded from it.
        device_name: Its device as text: "cpu", "cuda:0" or "mps".
        dtype_name: What it computes in: "float32", "bfloat16" or "float16".
        native_size: Side in pixels of the square window that it is made for.
        patch_size: Side of a patch in pixels.
        embed_dim: D, the length of all vectors.
        temperature: Logits are cosine / temperature.
        batch_size: How many windows go through the vision tower at once. It is halved where the device runs out of memory.
        on_less_memory: Is told the new batch size then.
        at_work: Whoever computes with torch holds it: on a CPU, threads of torch that compete wait for each other in vain.
    """

    folder: Path
    device_name: str
    dtype_name: str
    native_size: int
    patch_size: int
    embed_dim: int
    temperature: float
    batch_size: int
    on_less_memory: Callable[[int], None]
    at_work: threading.Lock

    @property
    def device(self) -> torch.device:
        """Its device; to ask for it may import torch."""

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Encode phrases, each filled into each of the templates.

        Args:
            phrases: P texts.
            templates: Texts with "{}" in the place of the phrase.

        Returns:
            One vector for each phrase, [P, D] float32 of unit length, on the device.
        """

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        """Encode windows, `batch_size` at a time. No result depends on which windows share a batch.

        A GPU may still be at work when this returns. A CPU takes its windows at the same time, and divides its threads between
        them. How it rounds may depend on the number of windows, so they should be all windows of one image.

        Args:
            windows: B pictures, [side, side, 3] uint8 RGB each.

        Returns:
            Their features, on the device.

        Raises:
            DeviceError: The memory does not even hold one window.
        """

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        """Encode an image in one piece, stretched to a size.

        Args:
            image: [H, W, 3] uint8 RGB.
            size: (height, width) in pixels, multiples of the patch size.

        Returns:
            Its features as those of one window: B is 1. They are on the device.

        Raises:
            DeviceError: The memory does not hold the image.
        """
