"""Prepare an upright image for the model: resize it, and cut it into windows. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import InputError
from tipsseg.labelling.windows import cut_windows, published_size
from tipsseg.types import WindowPlan

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
    """

    size: tuple[int, int]
    resized: NDArray[np.uint8]
    plan: WindowPlan
    finer: tuple[Prepared, ...] = ()

    @property
    def scales(self) -> tuple[Prepared, ...]:
        """The image at each scale, in ascending order: this one, then `finer`."""
        return (self, *self.finer)

    @property
    def squeezed(self) -> bool:
        """True if the long side is compressed at some scale, see `working_size`."""
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
