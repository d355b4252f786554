"""Verify a model's output: compare one device with another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.protocol import Backbone
from tipsseg.backbones.registry import open_backbone
from tipsseg.labelling.view import cut_windows


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement between the cosines from two devices.

    Attributes:
        difference: Largest absolute difference; NaN if a cosine is NaN.
        same_winner: Share of patches with the same best phrase, 0..1.
    """

    difference: float
    same_winner: float

    def within(self, limit: Agreement) -> bool:
        return self.difference <= limit.difference and self.same_winner >= limit.same_winner


# Measured with the embedded model on a CPU, for the picture of `draw_picture`, and the worst of 20 pictures with other seeds:
#
#              largest difference, worst     same winners, worst
#   bfloat16   0.0116              0.0222    99.2 %        98.8 %
#   float16    0.0016              0.0067    100 %         99.5 %
#   int8       0.0392              0.0605    99.0 %        97.0 %
#   the same with 7-bit weights
#              0.0585              0.0707    98.7 %        97.2 %
#
# The limits are twice the worst (for float16 1.5 times), because devices differ in summation order. For comparison, if the
# attention or the MLP of a block returns zeros, cosines differ by 0.13 to 0.70 and at most 87 % of the winners stay the same.
# Rounding in float32 is 2 ** 13 times finer than in float16.
LIMITS = {
    "float32": Agreement(1e-4, 0.999),
    "float16": Agreement(0.01, 0.99),
    "bfloat16": Agreement(0.045, 0.975),
    "int8": Agreement(0.14, 0.94),
}

_PHRASES = ("sky", "cloud", "grass", "water", "tree", "rock", "house roof", "car wheel", "panda leg", "umbrella")
_TEMPLATES = ("a photo of a {}.", "itap of a {}.")


def compare_devices(folder: Path, device: str, dtype: str) -> Agreement:
    """Compare a model's cosines on a device with those on the CPU in float32, for a synthetic picture.

    Raise RuntimeError if torch cannot compute on the device; see `open_backbone` for other errors.
    """
    expected, actual = (
        _cosines(open_backbone(folder, *settings)) for settings in (("cpu", "float32"), (device, dtype))
    )
    same = expected.argmax(1) == actual.argmax(1)
    return Agreement(float((actual - expected).abs().max()), float(same.float().mean()))


def draw_picture(height: int, width: int) -> NDArray[np.uint8]:
    """Draw soft ellipses on a gradient with a fixed seed: [height, width, 3] uint8 RGB."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    top, bottom = generator.uniform(0, 1, (2, 3))
    below = (y / height)[..., None]
    colours = top * (1 - below) + bottom * below  # [height, width, 3]
    for _ in range(12):
        centre = generator.uniform(0, 1, 2) * (height, width)
        radius = generator.uniform(0.06, 0.25, 2) * min(height, width)
        distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
        cover = (1 / (1 + np.exp(np.clip(8 * (distance - 1), -50, 50))))[..., None]
        colours = colours * (1 - cover) + generator.uniform(0, 1, 3) * cover
    return np.rint(colours * 255).astype(np.uint8)


def _cosines(backbone: Backbone) -> Tensor:
    """Compute the cosines of four windows of the picture, [4, P, h, w] float32 on the CPU."""
    side = backbone.native_size
    stride = side * 3 // 4
    corners = [(top, left) for top in (0, stride) for left in (0, stride)]
    vectors = backbone.encode_text(_PHRASES, _TEMPLATES)
    windows = cut_windows(draw_picture(side + stride, side + stride), corners, side)
    return (backbone.encode_windows(windows).patches @ vectors.T).cpu().permute(0, 3, 1, 2)  # [4, P, h, w]
