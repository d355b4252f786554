"""Geometry of the sliding window, in pure numbers: working size, windows, and the weights of bilinear resizing.

All sizes are (height, width), all positions (top, left), in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import UsageError
from tipsseg.options import Mode
from tipsseg.options.fields import text_of
from tipsseg.types import WindowPlan


@dataclass(frozen=True, slots=True, eq=False)
class InterpolationWeights:
    """Bilinear resizing along one axis: output i is source[low[i]] * (1 - weight[i]) + source[high[i]] * weight[i].

    Attributes:
        low: [n] int64, index of the source before the output.
        high: [n] int64, index of the source behind it.
        weight: [n] float32 in [0, 1), the share of `high`.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    def part(self, start: int, stop: int) -> InterpolationWeights:
        """The weights of outputs start .. stop - 1."""
        return InterpolationWeights(self.low[start:stop], self.high[start:stop], self.weight[start:stop])

    @property
    def span(self) -> slice:
        """What of the source they need."""
        return slice(int(self.low[0]), int(self.high[-1]) + 1)


#: An image that is enlarged for the model is not made longer than so many times as long as wide, see `working_size`.
LONGEST_ASPECT = 16


def published_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The size with its short side at `short_side`, aspect kept, the long side rounded down (but never below the short)."""
    height, width = size
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def working_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The size at which the model sees an image: the published one, but of strips that would be blown up beyond all measure.

    Of an image that is more than LONGEST_ASPECT times as long as wide, and that is enlarged, the long side is not made longer than
    that many short sides, or than what gives the working image as many pixels as the image has. Without that, a strip of
    3,000 x 2 pixels would take two thousand windows.
    """
    height, width = published_size(size, short_side)
    most = max(LONGEST_ASPECT * short_side, size[0] * size[1] // short_side)
    return min(height, most), min(width, most)


def window_side(native: int, short_side: int, patch: int) -> int:
    """Side of a window: the model's native size, or what fits a smaller image in whole patches."""
    return min(native, short_side // patch * patch)


def window_starts(length: int, side: int) -> tuple[int, ...]:
    """Starts of windows along one axis: a stride of 3/4 of the side, the last window shifted back inside.

    The published protocol states side 448 and stride 336.
    """
    stride = side * 3 // 4
    count = max(length - side + stride - 1, 0) // stride + 1
    return tuple(min(index * stride, length - side) for index in range(count))


def make_plan(size: tuple[int, int], native: int, short_side: int, patch: int, mode: Mode = "slide") -> WindowPlan:
    """Plan how the model sees an image.

    Args:
        size: (height, width) of the image in pixels.
        native: Side of the model's windows in pixels.
        short_side: The shorter side of the resized image in pixels.
        patch: Side of the model's patches in pixels.
        mode: "slide" for windows, "whole" for one piece.

    Returns:
        The plan.
    """
    height, width = working_size(size, short_side)
    if mode == "whole":
        return WindowPlan((height, width), 0, ())
    side = window_side(native, short_side, patch)
    corners = tuple((top, left) for top in window_starts(height, side) for left in window_starts(width, side))
    return WindowPlan((height, width), side, corners)


def short_sides(base: int, scales: Sequence[float]) -> tuple[int, ...]:
    """The short side of each scale in pixels; `base` is that of scale 1."""
    return tuple(max(round(base * scale), 1) for scale in scales)


def check_apart(scales: Sequence[float], sides: Sequence[int], patch: int) -> None:
    """Raise UsageError where the model would see the same grid of patches at two scales, or nearly so, and be paid for twice.

    That is where two short sides are less than a patch apart.

    Args:
        scales: In ascending order.
        sides: The short side of each in pixels.
        patch: Side of the model's patches in pixels.
    """
    for (one, other), (side, larger) in zip(pairwise(text_of(each) for each in scales), pairwise(sides), strict=True):
        if side == larger:
            raise UsageError(
                f"argument `scales`: {one} and {other} are both a short side of {side} pixels", _ONE_OF_TWO
            )
        if larger - side < patch:
            raise UsageError(
                f"argument `scales`: {one} and {other} are short sides of {side} and {larger} pixels, less than one patch "
                f"({patch} pixels) apart",
                _ONE_OF_TWO,
            )


_ONE_OF_TWO = "Leave one of them out: the model would see nearly the same patches twice, at twice the cost."


def cut_windows(image: NDArray[np.uint8], corners: Iterable[tuple[int, int]], side: int) -> list[NDArray[np.uint8]]:
    """The square windows of `side` pixels at `corners` of an image [H, W, 3]."""
    return [image[top : top + side, left : left + side] for top, left in corners]


def stretched_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The size rounded up to whole patches on both axes."""
    height, width = size
    return -(-height // patch) * patch, -(-width // patch) * patch


def patch_grid(plan: WindowPlan, patch: int) -> tuple[int, int, int]:
    """How many windows the model sees of an image, 1 for one piece; and how many patches of each, down and across."""
    height, width = stretched_size(plan.size, patch) if plan.whole else (plan.side, plan.side)
    return max(len(plan.corners), 1), height // patch, width // patch


def interpolation_weights(source: int, target: int) -> InterpolationWeights:
    """Weights of bilinear resizing with pixel centres at half-integers (torch's align_corners=False, no antialiasing)."""
    # In float32 as torch does it, so that ties fall the same way.
    scale = np.float32(source) / np.float32(target)
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centre = np.maximum(centre, np.float32(0))
    low = np.minimum(centre.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    return InterpolationWeights(low, high, np.clip(centre - low.astype(np.float32), 0, 1).astype(np.float32))
