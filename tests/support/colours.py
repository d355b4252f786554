"""A backbone of another architecture: a patch is its mean colour, a phrase the colour that it names."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from tipsseg.backbones.protocol import Backbone, Sizes, WindowFeatures

SIZES = Sizes(native_size=64, patch_size=8, embed_dim=3, class_tokens=1, temperature=0.05)
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}


def read_sizes(folder: Path) -> Sizes:
    return SIZES


def open_backbone(folder: Path, device: str, dtype: str, batch_size: int, *, lazy: bool) -> Backbone:
    return Colours(folder)


def save_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "colours"}))
    return folder


class Colours:
    def __init__(self, folder: Path) -> None:
        self.folder, self.device, self.device_name = folder, torch.device("cpu"), "cpu"
        self.dtype_name, self.dtype_reason = "float32", ""
        self.native_size, self.patch_size = SIZES.native_size, SIZES.patch_size
        self.embed_dim, self.temperature = SIZES.embed_dim, SIZES.temperature
        self.batch_size, self.at_work = 1, threading.Lock()
        self.on_less_memory: Callable[[int], None] = lambda _: None

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        return normalize(torch.tensor([COLOURS.get(phrase, (1, 1, 1)) for phrase in phrases], dtype=torch.float32))

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        pixels = torch.from_numpy(np.stack(windows)).float()  # [B, side, side, 3]
        patches = (
            pixels.unflatten(1, (-1, self.patch_size)).unflatten(3, (-1, self.patch_size)).mean((2, 4))
        )  # [B, h, w, 3]
        return WindowFeatures(
            normalize(patches + 1e-3, dim=-1), normalize(patches.mean((1, 2))[:, None] + 1e-3, dim=-1)
        )

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        raise NotImplementedError
