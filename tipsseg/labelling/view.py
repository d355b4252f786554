"""The sizes and windows at which a model sees an image, and images resized and cut for it. Never imports torch.

All sizes are (height, width), all positions (top, left), in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.backbones.protocol import Backbone, Sizes
from tipsseg.errors import InputError, UsageError, Words
from tipsseg.options import GUIDED, Mode
from tipsseg.options.fields import text_of
from tipsseg.options.records import LabelOptions
from tipsseg.types import LONGEST_ASPECT, WindowPlan


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
        if larger - side < patch:
            raise UsageError(
                Words(
                    "{scales}: {one} and {other} give short sides of {side} and {larger} pixels, less than one patch "
                    "({patch} pixels) apart",
                    one=one,
                    other=other,
                    side=side,
                    larger=larger,
                    patch=patch,
                ),
                "Remove one of them: the model would see nearly the same patches twice, at twice the cost.",
            )


def cut_windows(image: NDArray[np.uint8], corners: Iterable[tuple[int, int]], side: int) -> list[NDArray[np.uint8]]:
    """Cut square windows of `side` pixels at `corners` from an image [H, W, 3]."""
    return [image[top : top + side, left : left + side] for top, left in corners]


def stretched_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Round a size up to whole patches on both axes."""
    height, width = size
    return -(-height // patch) * patch, -(-width // patch) * patch


def interpolation_weights(source: int, target: int) -> InterpolationWeights:
    """Compute bilinear resizing weights with pixel centres at half-integers (torch's align_corners=False, no antialiasing)."""
    # In float32 like torch, so that ties are resolved in the same way.
    scale = np.float32(source) / np.float32(target)
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centre = np.maximum(centre, np.float32(0))
    low = np.minimum(centre.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    return InterpolationWeights(low, high, np.clip(centre - low.astype(np.float32), 0, 1).astype(np.float32))


#: Maximum number of pixels in a resized image.
MAX_WORKING_PIXELS = 178_956_970


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image resized for the model. It is in host memory, so threads can prepare it in advance.

    Attributes:
        size: (height, width) of the upright original in pixels.
        resized: [h, w, 3] uint8 RGB, at the size of `plan`.
        plan: Size and windows of the resized image.
        finer: The same image at larger scales, in ascending order.
        full: [H, W, 3] uint8 RGB, the upright original; None unless refinement follows it.
    """

    size: tuple[int, int]
    resized: NDArray[np.uint8]
    plan: WindowPlan
    finer: tuple[Prepared, ...] = ()
    full: NDArray[np.uint8] | None = None

    @property
    def scales(self) -> tuple[Prepared, ...]:
        """The image at each scale, in ascending order: this one, then `finer`."""
        return (self, *self.finer)

    @property
    def squeezed(self) -> bool:
        """True if the long side is compressed at some scale (see `working_size`)."""
        return any(scale.plan.size != published_size(scale.size, min(scale.plan.size)) for scale in self.scales)

    def windows(self) -> list[NDArray[np.uint8]]:
        """Cut the windows at this scale, each [side, side, 3] uint8. The list is empty in "whole" mode."""
        return cut_windows(self.resized, self.plan.corners, self.plan.side)


def prepare(upright: Image.Image, *plans: WindowPlan) -> Prepared:
    """Resize an upright image in mode RGB to the size of each plan (bicubic). Plans are in ascending order of size.

    Raise InputError for an image that is too elongated.
    """
    first, *finer = [_prepare(upright, plan) for plan in plans]
    return replace(first, finer=tuple(finer))


def _prepare(upright: Image.Image, plan: WindowPlan) -> Prepared:
    width, height = upright.size
    if plan.size[0] * plan.size[1] > MAX_WORKING_PIXELS:
        raise InputError(
            f"{height} x {width} (height x width) pixels are too elongated: resized to a short side of {min(plan.size)}, it "
            f"would have {plan.size[0]} x {plan.size[1]} pixels, more than {MAX_WORKING_PIXELS:,}",
            "Cut the image into pieces, or use a smaller short side.",
        )
    if (height, width) != plan.size:
        upright = upright.resize(plan.size[::-1], Image.Resampling.BICUBIC)
    return Prepared((height, width), np.array(upright), plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Sizes and windows of a model's input.

    Attributes:
        native_size: Side of the model's square windows in pixels.
        patch_size: Side of its patches in pixels.
        mode: "slide" for windows, "whole" for the image in one piece.
        base: Shorter side of the resized image at scale 1, in pixels.
        short_sides: Shorter side at each scale of the run, in ascending order.
        guided: True if prepared images are kept at their own size too.
    """

    native_size: int
    patch_size: int
    mode: Mode
    base: int
    short_sides: tuple[int, ...]
    guided: bool = False

    def plans(self, size: tuple[int, int]) -> tuple[WindowPlan, ...]:
        """Return the plan of an image of `size` (height, width) at each scale."""
        return tuple(make_plan(size, self.native_size, side, self.patch_size, self.mode) for side in self.short_sides)

    def prepare(self, upright: Image.Image) -> Prepared:
        """Resize an upright image in mode RGB for each scale. Safe to call from several threads."""
        prepared = prepare(upright, *self.plans((upright.height, upright.width)))
        return replace(prepared, full=np.array(upright)) if self.guided else prepared

    def patch_side(self, size: tuple[int, int]) -> float:
        """Return the side of a patch at scale 1, in pixels of an image of `size` (height, width)."""
        return self.patch_size * min(size) / self.base

    def grid(self, plan: WindowPlan) -> tuple[int, int]:
        """Return the (rows, columns) of patches of the whole resized image."""
        height, width = (max(round(side / self.patch_size), 1) for side in plan.size)
        return height, width

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """Return (windows, rows, columns) at each scale: the number of windows, and the patches of a window."""
        grids = []
        for plan in self.plans(size):
            height, width = stretched_size(plan.size, self.patch_size) if plan.whole else (plan.side, plan.side)
            grids.append((max(len(plan.corners), 1), height // self.patch_size, width // self.patch_size))
        return grids


def view_of(model: Backbone | Sizes, options: LabelOptions) -> View:
    """Return a model's view of images with these options.

    Raise UsageError if a short side is too small or too large, or two scales differ by less than a patch.
    """
    native_size, patch_size = model.native_size, model.patch_size
    base = options.short_side or native_size
    sides = short_sides(base, options.scales)
    for side in (base, *sides):
        _check_side(side, native_size, patch_size)
    check_distinct(options.scales, sides, patch_size)
    return View(
        native_size=native_size,
        patch_size=patch_size,
        mode=options.mode,
        base=base,
        short_sides=sides,
        guided=options.refine in GUIDED,
    )


def _check_side(side: int, native_size: int, patch_size: int) -> None:
    hint = f"The model's native size is {native_size}."
    if side < patch_size:
        raise UsageError(f"short side {side} is smaller than one patch ({patch_size} pixels)", hint)
    if side**2 > MAX_WORKING_PIXELS:
        raise UsageError(
            f"short side {side} is too large: a square image would have more than {MAX_WORKING_PIXELS:,} pixels", hint
        )
