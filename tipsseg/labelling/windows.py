"""Compute the geometry of sliding windows: size of the resized image, windows, and bilinear resizing weights.

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
        low: [n] int64, index of the source before each output.
        high: [n] int64, index of the source after it.
        weight: [n] float32 in [0, 1), weight of `high`.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    def part(self, start: int, stop: int) -> InterpolationWeights:
        """Return the weights of outputs start .. stop - 1."""
        return InterpolationWeights(self.low[start:stop], self.high[start:stop], self.weight[start:stop])

    def at(self, outputs: NDArray[np.intp]) -> InterpolationWeights:
        """Return the weights of some outputs, in any shape."""
        return InterpolationWeights(self.low[outputs], self.high[outputs], self.weight[outputs])

    @property
    def span(self) -> slice:
        """Slice of the source that the outputs depend on."""
        return slice(int(self.low[0]), int(self.high[-1]) + 1)


#: Maximum aspect ratio of enlarged images, see `working_size`.
LONGEST_ASPECT = 16


def published_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Scale a size to `short_side`, keeping the aspect ratio. The long side is rounded down, but not below the short side."""
    height, width = size
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def working_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return the size of the resized image: the published size, with a limit for narrow strips.

    For an enlarged image, the long side is limited to LONGEST_ASPECT short sides, or to the length with which the resized image has
    as many pixels as the original, whichever is longer. Without the limit, a strip of 3,000 x 2 pixels would take two thousand
    windows.
    """
    height, width = published_size(size, short_side)
    limit = max(LONGEST_ASPECT * short_side, size[0] * size[1] // short_side)
    return min(height, limit), min(width, limit)


def window_side(native: int, short_side: int, patch: int) -> int:
    """Return the side of a window: the native size, or less for a smaller short side, in whole patches."""
    return min(native, short_side // patch * patch)


def window_starts(length: int, side: int) -> tuple[int, ...]:
    """Return the starts of windows along one axis, with a stride of 3/4 of the side. The last window is shifted back inside.

    The published protocol has side 448 and stride 336.
    """
    stride = side * 3 // 4
    count = max(length - side + stride - 1, 0) // stride + 1
    return tuple(min(index * stride, length - side) for index in range(count))


def make_plan(size: tuple[int, int], native: int, short_side: int, patch: int, mode: Mode = "slide") -> WindowPlan:
    """Plan the size and the windows of a resized image.

    Args:
        size: (height, width) of the image in pixels.
        native: Side of the model's windows in pixels.
        short_side: Shorter side of the resized image in pixels.
        patch: Side of the model's patches in pixels.
        mode: "slide" for windows, "whole" for the image in one piece.
    """
    height, width = working_size(size, short_side)
    if mode == "whole":
        return WindowPlan((height, width), 0, ())
    side = window_side(native, short_side, patch)
    corners = tuple((top, left) for top in window_starts(height, side) for left in window_starts(width, side))
    return WindowPlan((height, width), side, corners)


def short_sides(base: int, scales: Sequence[float]) -> tuple[int, ...]:
    """Return the short side of each scale in pixels. `base` is the short side at scale 1."""
    return tuple(max(round(base * scale), 1) for scale in scales)


def check_distinct(scales: Sequence[float], sides: Sequence[int], patch: int) -> None:
    """Raise UsageError if the short sides of two scales differ by less than a patch, and so yield nearly the same patches.

    Args:
        scales: The scales in ascending order.
        sides: Their short sides in pixels.
        patch: Side of the model's patches in pixels.
    """
    for (one, other), (side, larger) in zip(pairwise(text_of(scale) for scale in scales), pairwise(sides), strict=True):
        if side == larger:
            raise UsageError(
                f"argument `scales`: {one} and {other} both give a short side of {side} pixels", _ONE_OF_TWO
            )
        if larger - side < patch:
            raise UsageError(
                f"argument `scales`: {one} and {other} give short sides of {side} and {larger} pixels, less than one patch "
                f"({patch} pixels) apart",
                _ONE_OF_TWO,
            )


_ONE_OF_TWO = "Remove one of them: the model would see nearly the same patches twice, at twice the cost."


def cut_windows(image: NDArray[np.uint8], corners: Iterable[tuple[int, int]], side: int) -> list[NDArray[np.uint8]]:
    """Cut square windows of `side` pixels at `corners` from an image [H, W, 3]."""
    return [image[top : top + side, left : left + side] for top, left in corners]


def stretched_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Round a size up to whole patches on both axes."""
    height, width = size
    return -(-height // patch) * patch, -(-width // patch) * patch


def patch_grid(plan: WindowPlan, patch: int) -> tuple[int, int, int]:
    """Return (windows, rows, columns) of a plan: the number of windows, 1 for one piece, and the patches of a window."""
    height, width = stretched_size(plan.size, patch) if plan.whole else (plan.side, plan.side)
    return max(len(plan.corners), 1), height // patch, width // patch


def interpolation_weights(source: int, target: int) -> InterpolationWeights:
    """Compute bilinear resizing weights with pixel centres at half-integers (torch's align_corners=False, no antialiasing)."""
    # In float32 like torch, so that ties are resolved in the same way.
    scale = np.float32(source) / np.float32(target)
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centre = np.maximum(centre, np.float32(0))
    low = np.minimum(centre.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    return InterpolationWeights(low, high, np.clip(centre - low.astype(np.float32), 0, 1).astype(np.float32))
