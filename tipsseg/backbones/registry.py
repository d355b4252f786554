"""Choose the architecture of a model by `model_type` in its config.json, and open the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.backbones.protocol import Architecture, Backbone, Sizes, WindowFeatures
from tipsseg.plugins import load_plugin, names
from tipsseg.weights.sources import read_model_type

if TYPE_CHECKING:
    from torch import Tensor

#: The modules of architectures (see `Architecture`), by `model_type`. They import torch once a model is opened. Plugins bring more.
ARCHITECTURES: dict[str, str] = {"tipsv2": "tipsseg.backbones.tipsv2"}


def read_sizes(folder: Path) -> Sizes:
    """Read the sizes of the model in a folder. Raise CheckpointError if its files are invalid."""
    return _architecture_of(folder).read_sizes(folder)


def open_backbone(
    folder: Path, device: str = "auto", dtype: str = "auto", batch_size: int | None = None, *, lazy: bool = False
) -> Backbone:
    """Open the model in a folder.

    Args:
        folder: The folder of config.json and the other files.
        device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "bfloat16", "float16" or, on a CPU, "int8".
        batch_size: Windows per pass of the vision tower on a GPU. None: 8, or 2 on MPS.
        lazy: Load a tower only when it is first used. On a CPU, even torch is imported only then, unless `dtype` is "auto".

    Raises:
        CheckpointError: The files are not a model of a known architecture.
        DeviceError: The device or the dtype is not available.
        UsageError: The device or the dtype has an unknown name.
    """
    architecture = _architecture_of(folder)
    if lazy and device == "cpu" and dtype != "auto":
        return _LazyBackbone(
            folder,
            dtype,
            architecture.read_sizes(folder),
            lambda: architecture.open_backbone(folder, device, dtype, 1, lazy=True),
        )
    return architecture.open_backbone(folder, device, dtype, batch_size, lazy=lazy)


def _architecture_of(folder: Path) -> Architecture:
    """Return the architecture of a model; TIPSv2's for an unknown one, because it explains why it cannot be read."""
    model_type = str(read_model_type(folder))
    if model_type in names("backbone") and model_type not in ARCHITECTURES:
        return cast(Architecture, load_plugin("backbone", model_type))
    return cast(Architecture, import_module(ARCHITECTURES.get(model_type, ARCHITECTURES["tipsv2"])))


class _LazyBackbone(Backbone):
    """A model on the CPU that is opened when it is first used. Until then, torch is not imported."""

    def __init__(self, folder: Path, dtype_name: str, sizes: Sizes, open_model: Callable[[], Backbone]) -> None:
        """Set up for the model in a folder, with its sizes; `open_model` opens it."""
        super().__init__(folder, "cpu", dtype_name, sizes)
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

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        return self._load().encode_text(phrases, templates)

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        return self._load().encode_windows(windows)

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        return self._load().encode_whole(image, size)
