"""Load a model on a CPU on first use. With stored features and cached text vectors, not even torch is imported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tipsseg.backbones.protocol import Backbone, Sizes, WindowFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LazyBackbone:
    """A model on the CPU, see `Backbone`, that is opened when it is first used."""

    def __init__(self, folder: Path, dtype_name: str, sizes: Sizes, open_model: Callable[[], Backbone]) -> None:
        """Set up for the model in a folder, with its sizes; `open_model` opens it."""
        self.folder = folder
        self.device_name = "cpu"
        self.dtype_name = dtype_name
        self.dtype_reason = ""  # a lazy model has a dtype from before
        self.native_size, self.patch_size = sizes.native_size, sizes.patch_size
        self.embed_dim, self.temperature = sizes.embed_dim, sizes.temperature
        self.batch_size = 1
        self.on_less_memory: Callable[[int], None] = lambda _: None
        self.at_work = threading.Lock()
        self._open_model = open_model
        self._loading = threading.Lock()

    @cached_property
    def _model(self) -> Backbone:
        model = self._open_model()
        model.at_work = self.at_work
        return model

    def _load(self) -> Backbone:
        with self._loading:
            return self._model

    @property
    def device(self) -> torch.device:
        """The CPU as a torch device."""
        return self._load().device

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        return self._load().encode_text(phrases, templates)

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        return self._load().encode_windows(windows)

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        return self._load().encode_whole(image, size)
