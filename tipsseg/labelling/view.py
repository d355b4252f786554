"""Define the image sizes and windows that a model sees. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from tipsseg.errors import UsageError
from tipsseg.labelling.prepare import MAX_WORKING_PIXELS, Prepared, prepare
from tipsseg.labelling.windows import check_distinct, make_plan, patch_grid, short_sides
from tipsseg.options import LabelOptions, Mode
from tipsseg.types import WindowPlan

if TYPE_CHECKING:
    from tipsseg.backbones.protocol import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Sizes and windows of a model's input.

    Attributes:
        native_size: Side of the model's square windows in pixels.
        patch_size: Side of its patches in pixels.
        mode: "slide" for windows, "whole" for the image in one piece.
        base: Shorter side of the resized image at scale 1, in pixels.
        short_sides: Shorter side at each scale of the run, in ascending order.
        stretch: Percentiles of each band that become black and white; None for the values as they are.
    """

    native_size: int
    patch_size: int
    mode: Mode
    base: int
    short_sides: tuple[int, ...]
    stretch: tuple[float, float] | None = None

    def plans(self, size: tuple[int, int]) -> tuple[WindowPlan, ...]:
        """Return the plan of an image of `size` (height, width) at each scale."""
        return tuple(make_plan(size, self.native_size, side, self.patch_size, self.mode) for side in self.short_sides)

    def prepare(self, upright: Image.Image) -> Prepared:
        """Resize an upright image in mode RGB for each scale. Safe to call from several threads."""
        return prepare(upright, *self.plans((upright.height, upright.width)))

    def patch_side(self, size: tuple[int, int]) -> float:
        """Return the side of a patch at scale 1, in pixels of an image of `size` (height, width)."""
        return self.patch_size * min(size) / self.base

    def grid(self, plan: WindowPlan) -> tuple[int, int]:
        """Return the (rows, columns) of patches of the whole resized image."""
        height, width = (max(round(side / self.patch_size), 1) for side in plan.size)
        return height, width

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """Return (windows, rows, columns) at each scale: the number of windows, and the patches of a window."""
        return [patch_grid(plan, self.patch_size) for plan in self.plans(size)]


def view_of(backbone: Backbone, options: LabelOptions) -> View:
    """Return a model's view of images with these options. See `make_view` for errors."""
    return make_view(backbone.native_size, backbone.patch_size, options)


def make_view(native_size: int, patch_size: int, options: LabelOptions) -> View:
    """Create the view of a model with these sizes and options.

    Raise UsageError if a short side is too small or too large, or two scales differ by less than a patch.
    """
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
        stretch=options.stretch,
    )


def _check_side(side: int, native_size: int, patch_size: int) -> None:
    hint = f"The model's native size is {native_size}."
    if side < patch_size:
        raise UsageError(f"short side {side} is smaller than one patch ({patch_size} pixels)", hint)
    if side**2 > MAX_WORKING_PIXELS:
        raise UsageError(
            f"short side {side} is too large: a square image would have more than {MAX_WORKING_PIXELS:,} pixels", hint
        )
