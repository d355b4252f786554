"""Refine labels along edges: by PAMR at the model's size (see `pamr`), by a guided filter at the size of the image, or by both.

The guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, with the coefficients of its section on colour images)
takes every soft map as a linear function of the image's colours in each window of (2 radius + 1)^2 pixels. As in their fast version
(arXiv 1505.00996), the coefficients are computed at the model's size, resized (bilinear), and applied to the image at its own size.

The maps of an image sum to 1 at each pixel, and so do the filtered ones. Single values may be negative, or larger than 1: they are
clipped to 0..1, and nothing is normalised again.

A group competes in a cell of a fixed grid if it has the largest refined map at some pixel within twice the radius of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.assign import (
    Assignment,
    LabelTable,
    allocate_confidence,
    occurring_groups,
    probabilities,
    sharpen,
)
from tipsseg.labelling.scores import PatchScores, grid_weights
from tipsseg.labelling.sums import Ids, Values, resize
from tipsseg.labelling.winners import CHUNK, Span, argmax
from tipsseg.options import Refinement
from tipsseg.types import LabelArray

#: Values of soft maps and coefficients at a time, maps x rows x columns: 256 MB.
_ELEMENTS = 64_000_000

#: The side of a cell of the guided filter, in pixels of the model's size.
_CELL = 64

#: The coefficients of a map at each pixel: one for each channel, and the constant.
_COEFFICIENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of a refinement.

    Attributes:
        pamr: True if PAMR refines the maps at the model's size.
        radius: The radius of the guided filter, in pixels of the model's size; 0 for none.
        epsilon: Its regularization, for colours in 0..1.
    """

    pamr: bool
    radius: int = 0
    epsilon: float = 0.0


#: Steps by refinement. The numbers of the guided filters were chosen on synthetic scenes, see tests/benchmarks/README.md.
REFINEMENT_STEPS: dict[Refinement, Steps] = {
    "guided": Steps(pamr=False, radius=20, epsilon=1e-4),
    "pamr": Steps(pamr=True),
    "pamr-guided": Steps(pamr=True, radius=4, epsilon=1e-4),
}

#: The exponent of `sharpen` for refined probabilities, chosen on synthetic scenes.
_SHARPNESS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guide:
    """The image that refinement follows.

    Attributes:
        small: [h, w, 3] uint8 RGB, as the model sees it at the finest scale.
        full: [H, W, 3] uint8 RGB, at its own size; None without a guided filter.
        steps: The steps of the refinement.
        pamr: Function that refines maps [K, h, w] according to `small`.
    """

    small: NDArray[np.uint8]
    full: NDArray[np.uint8] | None
    steps: Steps
    pamr: Callable[[Values, NDArray[np.uint8]], Values]

    @property
    def size(self) -> tuple[int, int]:
        """The model's size, (h, w)."""
        return self.small.shape[0], self.small.shape[1]


def match_refined(scores: PatchScores, guide: Guide, size: tuple[int, int], table: LabelTable) -> Assignment:
    """Find labels like `match`, after refining the group probabilities along the edges of the image.

    Refine only groups that win somewhere, at the model's size, and resize or filter the result to `size` (H, W). A refined
    probability mixes the probabilities of many pixels, and is right more often than it says: the confidence is sharpened (see
    `sharpen`).
    """
    groups = occurring_groups(scores, guide.size, table.groups)
    label_ids, minimum = table.label_ids[groups], table.min_confidence
    labels = np.empty(size, label_ids.dtype)
    confidence = allocate_confidence(size)
    confidence[:] = -1
    for place, chosen, values in _refined_pieces(scores, guide, size, table, groups):
        best = values.max(0)  # [r, c]
        # In the stored precision, so that the first of equal groups wins.
        wins = best.astype(confidence.dtype) > confidence[place]
        labels[place][wins] = label_ids[chosen][argmax(values, best)[wins]]
        confidence[place][wins] = best[wins]
    step = max(CHUNK // size[1], 1)
    for start in range(0, size[0], step):
        band = slice(start, start + step)
        confidence[band] = sharpen(confidence[band], _SHARPNESS)
        if minimum.any():
            labels[band][confidence[band] < minimum[labels[band]]] = table.ignore
    return Assignment(cast(LabelArray, labels), confidence)


def _refined_pieces(
    scores: PatchScores, guide: Guide, size: tuple[int, int], table: LabelTable, groups: Ids
) -> Iterator[tuple[Span, Ids, Values]]:
    """Yield pieces of an image of `size`: rows and columns, the groups that compete there, as indices of `groups`, and their maps.

    A piece may come several times, with other groups.
    """
    (height, width), filtered = guide.size, guide.steps.radius > 0
    at_once = max(_ELEMENTS // (height * width * (1 + _COEFFICIENTS * filtered)), 1)

    def chunks() -> Iterator[tuple[Ids, Values]]:
        for start in range(0, len(groups), at_once):
            chosen = np.arange(start, min(start + at_once, len(groups)))
            maps = probabilities(scores, guide.size, table.groups, groups[chosen])
            yield chosen, guide.pamr(maps, guide.small) if guide.steps.pamr else maps

    if guide.full is None:
        for chosen, maps in chunks():
            for band, resized in _resize_in_bands(maps, size):
                yield (band, slice(None)), chosen, resized
        return
    known = list(chunks()) if len(groups) <= at_once else None
    best, winners = np.full(guide.size, -1, np.float32), np.zeros(guide.size, np.uint16)
    for chosen, maps in known or chunks():
        highest = maps.max(0)
        wins = highest > best
        winners[wins] = chosen[argmax(maps, highest)[wins]]
        np.maximum(best, highest, out=best)
    regression = _Regression(guide.small, guide.steps)
    for chosen, maps in known or chunks():
        coefficients = np.stack([regression.coefficients(each) for each in maps])  # [K, 4, h, w]
        for cell, competing in _cells(winners, 2 * guide.steps.radius):
            own = np.isin(chosen, competing)
            if own.any():
                yield from _filtered(coefficients, np.flatnonzero(own), chosen[own], cell, guide.full)


def _cells(winners: NDArray[np.uint16], margin: int) -> Iterator[tuple[Span, NDArray[np.uint16]]]:
    """Yield the cells of the grid, and the groups that win within `margin` pixels of them."""
    height, width = winners.shape
    for top in range(0, height, _CELL):
        for left in range(0, width, _CELL):
            near = winners[max(top - margin, 0) : top + _CELL + margin, max(left - margin, 0) : left + _CELL + margin]
            yield (slice(top, top + _CELL), slice(left, left + _CELL)), np.unique(near)


class _Regression:
    """Maps as linear functions of the colours around each pixel."""

    def __init__(self, image: NDArray[np.uint8], steps: Steps) -> None:
        self._side = 2 * steps.radius + 1
        self._colours = image.astype(np.float64) / 255  # [h, w, 3]
        self._means = self._box(self._colours)
        self._inverse = self._invert_covariance(steps.epsilon)

    def _invert_covariance(self, epsilon: float) -> NDArray[np.float64]:
        """Return the inverse of the covariance of the colours around each pixel, plus `epsilon` on its diagonal, [3, 3, h, w]."""
        products = self._box(
            np.concatenate([self._colours, np.roll(self._colours, -1, -1)], -1) * np.tile(self._colours, 2)
        )
        spread = products - np.concatenate([self._means, np.roll(self._means, -1, -1)], -1) * np.tile(self._means, 2)
        rr, gg, bb, rg, gb, br = np.moveaxis(spread, -1, 0)  # [h, w] each
        rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
        adjugate = np.array(
            [
                [gg * bb - gb * gb, gb * br - rg * bb, rg * gb - gg * br],
                [gb * br - rg * bb, rr * bb - br * br, br * rg - rr * gb],
                [rg * gb - gg * br, br * rg - rr * gb, rr * gg - rg * rg],
            ]
        )
        return adjugate / (rr * adjugate[0, 0] + rg * adjugate[0, 1] + br * adjugate[0, 2])

    def coefficients(self, values: Values) -> Values:
        """Return the coefficients of a map [h, w], [4, h, w]: of red, green and blue, and the constant."""
        sums = self._box(np.concatenate([values[..., None] * self._colours, values[..., None]], -1))  # [h, w, 4]
        shared = np.moveaxis(sums[..., :3] - self._means * sums[..., 3:], -1, 0)  # [3, h, w]
        slopes = np.moveaxis((self._inverse * shared).sum(1), 0, -1)  # [h, w, 3]
        constant = sums[..., 3:] - (slopes * self._means).sum(-1, keepdims=True)
        found = self._box(np.concatenate([slopes, constant], -1))
        return np.ascontiguousarray(found.transpose(2, 0, 1), np.float32)

    def _box(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of values [h, w, C] over the window around each pixel. The image is continued by its reflection."""
        found = cv2.boxFilter(values, -1, (self._side, self._side), borderType=cv2.BORDER_REFLECT)
        return cast(NDArray[np.float64], found)


def _filtered(
    coefficients: Values, own: Ids, groups: Ids, cell: Span, image: NDArray[np.uint8]
) -> Iterator[tuple[Span, Ids, Values]]:
    """Yield the maps of some groups in bands of rows of a cell (see `_refined_pieces`)."""
    size = image.shape[0], image.shape[1]
    axes = grid_weights((coefficients.shape[2], coefficients.shape[3]), size)
    rows, columns = (_outputs(*each) for each in zip(cell, coefficients.shape[2:], size, strict=True))
    if columns.start == columns.stop:
        return
    step = max(CHUNK // (len(own) * _COEFFICIENTS * (columns.stop - columns.start)), 1)
    across = axes[1].part(columns.start, columns.stop)
    for start in range(rows.start, rows.stop, step):
        place = slice(start, min(start + step, rows.stop)), columns
        down = axes[0].part(place[0].start, place[0].stop)
        part = resize(coefficients[own, :, down.span, across.span], down, across)  # [K, 4, r, c]
        colours = image[place].astype(np.float32).transpose(2, 0, 1) * np.float32(1 / 255)
        values = part[:, 3]
        for channel, shade in enumerate(colours):
            values += part[:, channel] * shade
        yield place, groups, np.clip(values, 0, 1, out=values)


def _outputs(part: slice, source: int, target: int) -> slice:
    """Return the pixels of an axis of `target` pixels whose centres are in `part` of an axis of `source` pixels."""
    first, last = (-(-(2 * min(end, source) * target - source) // (2 * source)) for end in (part.start, part.stop))
    return slice(max(first, 0), max(last, 0))


def _resize_in_bands(maps: Values, size: tuple[int, int]) -> Iterator[tuple[slice, Values]]:
    """Resize maps [K, h, w] to `size`, and yield bands of rows: the rows, and the maps [K, rows, W]."""
    rows, columns = grid_weights((maps.shape[1], maps.shape[2]), size)
    step = max(CHUNK // (len(maps) * size[1]), 1)
    for start in range(0, size[0], step):
        part = rows.part(start, start + step)
        yield slice(start, start + step), resize(maps[:, part.span, columns.span], part, columns)
