"""Prepare an image for the model: upright, resized, and cut into windows. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import InputError
from tipsseg.labelling.windows import cut_windows, published_size
from tipsseg.types import WindowPlan

#: Images that would have more pixels once their short side is as long as the model wants it are refused.
MAX_WORKING_PIXELS = 178_956_970


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image resized for the model; needs no device, so threads can make it ahead.

    Attributes:
        size: (height, width) of the original in pixels, upright.
        resized: [h, w, 3] uint8 RGB, at the size of `plan`.
        plan: How the model sees it.
        finer: The same image at larger scales, in ascending order.
    """

    size: tuple[int, int]
    resized: NDArray[np.uint8]
    plan: WindowPlan
    finer: tuple[Prepared, ...] = ()

    @property
    def scales(self) -> tuple[Prepared, ...]:
        """The image at each scale: itself, and the finer ones."""
        return (self, *self.finer)

    @property
    def squeezed(self) -> bool:
        """Whether the model sees the image shorter than it is at some scale, see `working_size`."""
        return any(each.plan.size != published_size(each.size, min(each.plan.size)) for each in self.scales)

    def windows(self) -> list[NDArray[np.uint8]]:
        """Cut the windows of this scale, [side, side, 3] uint8 each; none where the model sees the image in one piece."""
        return cut_windows(self.resized, self.plan.corners, self.plan.side)


def prepare(upright: Image.Image, *plans: WindowPlan) -> Prepared:
    """Resize an upright image in mode RGB to the size of its plan, bicubic; of several plans, to each, the coarsest first.

    Raises InputError for an image that is too elongated.
    """
    first, *finer = [_prepare(upright, plan) for plan in plans]
    return replace(first, finer=tuple(finer))


def _prepare(upright: Image.Image, plan: WindowPlan) -> Prepared:
    width, height = upright.size
    if plan.size[0] * plan.size[1] > MAX_WORKING_PIXELS:
        raise InputError(
            f"{height} x {width} (height x width) pixels are too elongated: at a short side of {min(plan.size)} this would be "
            f"{plan.size[0]} x {plan.size[1]} pixels, more than {MAX_WORKING_PIXELS:,}",
            "Cut it into pieces, or use a smaller short side.",
        )
    if (height, width) != plan.size:
        upright = upright.resize(plan.size[::-1], Image.Resampling.BICUBIC)
    return Prepared((height, width), np.array(upright), plan)
