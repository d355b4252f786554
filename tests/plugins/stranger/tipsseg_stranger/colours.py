"""A model of somebody else: a patch is its mean colour, a phrase the colour that it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from tipsseg.backbones.protocol import Backbone, Sizes, WindowFeatures

SIZES = Sizes(native_size=64, patch_size=8, embed_dim=3, class_tokens=1, temperature=0.05)
FILES = {
    "config.json": {"model_type": "colours"},
    "colours.json": {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)},
}


def read_sizes(folder: Path) -> Sizes:
    return SIZES


def open_backbone(folder: Path, device: str, dtype: str, batch_size: int, *, lazy: bool) -> Backbone:
    return Colours(folder, "cpu", "float32", SIZES)


def save_model(folder: Path) -> Path:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(json.dumps(content))
    return folder


class Colours(Backbone):
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        colours = json.loads((self.folder / "colours.json").read_text())
        return normalize(torch.tensor([colours.get(phrase, (1, 1, 1)) for phrase in phrases], dtype=torch.float32))

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        pixels = torch.from_numpy(np.stack(windows)).float()  # [B, side, side, 3]
        patches = (
            pixels.unflatten(1, (-1, self.patch_size)).unflatten(3, (-1, self.patch_size)).mean((2, 4))
        )  # [B, h, w, 3]
        return WindowFeatures(
            normalize(patches + 1e-3, dim=-1), normalize(patches.mean((1, 2))[:, None] + 1e-3, dim=-1)
        )

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        return self.encode_windows([np.array(Image.fromarray(image).resize(size[::-1]))])
