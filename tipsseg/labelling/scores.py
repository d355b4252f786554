"""Resize maps bilinearly, or parts of them. Every value depends only on its neighbours.

The weights may cover a part of the outputs; then `values` is the part of the source in `InterpolationWeights.span`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.sums import Ids, Values, WindowSums, interpolate, resize
from tipsseg.labelling.view import InterpolationWeights, interpolation_weights
from tipsseg.types import WindowPlan

#: Patches and multiplications per matrix product. OpenBLAS does not divide products of this size between threads, whose waiting
#: would keep cores busy for milliseconds after every product.
_ROWS, _PRODUCT = 16, 1 << 18

#: With several scales, the coarse grid has one cell per _COARSE pixels of the finest resized image, along each axis.
_COARSE = 4


#: Resizing weights for rows and columns.
Axes = tuple[InterpolationWeights, InterpolationWeights]


class WindowScores:
    """Scores in "slide" mode: the mean probability over the windows at a pixel, weighted by `WindowPlan.fade`.

    The confidence is softmax(log(p) / temperature) for the mean probability p of a phrase. With a single window at the pixel, this
    equals softmax(cosine / temperature), because the denominator of p is the same for all phrases.

    Attributes:
        size: (height, width) of the grid of the scores, which are resized to the image.
        working_size: (height, width) of the resized image at the finest scale.
        coarse_size: (height, width) of a coarser grid, for values that change little from pixel to pixel.
        tile_patches: Preferred side of a tile in patches.
        phrases: P.
        temperature: Temperature of the softmax for confidences.
        cosines: [windows, h, w, P] float32, in the order of `plan.corners`.
        plan: The windows.
    """

    tile_patches = 4

    def __init__(self, cosines: Values, plan: WindowPlan, temperature: float) -> None:
        """Store the cosines, [windows, h, w, P] float32, in the order of `plan.corners`."""
        self.size = self.working_size = self.coarse_size = plan.size
        self.phrases = cosines.shape[3]
        self.temperature = temperature
        self.cosines, self.plan = cosines, plan
        self._weights = interpolation_weights(cosines.shape[1], plan.side)
        self._own, self._totals = window_weights(plan)
        self._sums = [WindowSums(window, plan.side) for window in cosines]
        self._factors = np.empty((len(cosines), plan.side, plan.side), np.float32)
        self._known = np.zeros((len(cosines), plan.side), bool)  # the rows of `_factors` that are computed

    def _factor(self, window: int, rows: slice) -> Values:
        """Return the factors that turn exp(cosine) into a window's part of the mean, [r, side], for some rows of the window.

        They are computed at first use: the parts of a whole need few rows.
        """
        missing = np.flatnonzero(~self._known[window, rows])
        if len(missing):
            (top, left), (down, across), own = self.plan.corners[window], self._totals, self._own
            part, sums = self._sums[window].rows(slice(rows.start + int(missing[0]), rows.start + int(missing[-1]) + 1))
            sums *= np.outer(down[top:][part] / own[part], across[left:][: self.plan.side] / own)
            np.reciprocal(sums, out=self._factors[window, part])
            self._known[window, part] = True
        return self._factors[window, rows]

    def corners(self, axes: Axes, tiles: Ids) -> list[Values]:
        """Return cosines at a few points of each tile, such that the cosines at all pixels of the tile are means of them.

        The weights of these means are the same for all phrases.

        Args:
            axes: Weights from the grid to the image.
            tiles: [T, 4], first and last row, then first and last column of each tile in the image.

        Returns:
            [T, N, P] per scale. Tiles with fewer points repeat their first.
        """
        corners = [
            (tile, interpolate(self.cosines[window], *_knots((self._weights, self._weights), part)))
            for window, tile, part in self._tiles(_sources(axes, tiles))
        ]
        return [_join_windows(corners, len(tiles))]

    def _tiles(self, tiles: Ids) -> Iterator[tuple[int, Ids, Ids]]:
        """Yield the windows that overlap some tiles of the grid: the window, these tiles [t], and their parts of it [t, 4]."""
        side = self.plan.side
        for window, (top, left) in enumerate(self.plan.corners):
            part = tiles - (top, top, left, left)
            (index,) = np.nonzero((part[:, ::2] < side).all(1) & (part[:, 1::2] >= 0).all(1))
            if len(index):
                yield window, index, part[index].clip(0, side - 1)

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """Return the scores of some phrases in a part of the grid, [K, r, c] float32. They do not depend on other phrases."""
        first, *others = self._overlaps(rows, columns)
        if not others:
            return self._probabilities(*first, phrases)
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for window, (down, across) in (first, *others):
            part = self._probabilities(window, (down, across), phrases)  # [K, r', c']
            top, left = self.plan.corners[window]
            y, x = down.start + top - rows.start, across.start + left - columns.start
            total[:, y : y + part.shape[1], x : x + part.shape[2]] += part
        return total

    def _probabilities(self, window: int, inside: tuple[slice, slice], phrases: Ids) -> Values:
        """Return a window's part of the mean probabilities of some phrases, in a part of the window, [K, r, c]."""
        part = self._resize_window(window, inside, phrases)
        np.exp(part, out=part)
        part *= self._factor(window, inside[0])[:, inside[1]]
        return part

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """Return the logits of some phrases in a part of the coarse grid, [K, r, c] float32."""
        (window, inside), *others = self._overlaps(rows, columns)
        if others:
            return self.logits(self.values(rows, columns, phrases))
        logits = self._resize_window(window, inside, phrases)  # a single window needs neither exp nor log
        logits += np.log(self._factor(window, inside[0])[:, inside[1]])
        return logits

    def logits(self, scores: Values) -> Values:
        """Convert scores in place to logits, which replace cosines in softmax(cosine / temperature)."""
        return np.log(scores, out=scores)

    def _resize_window(self, window: int, inside: tuple[slice, slice], phrases: Ids) -> Values:
        """Return the cosines of some phrases in a part of a window, [K, r, c]."""
        down, across = (self._weights.part(part.start, part.stop) for part in inside)
        patches = self.cosines[window][down.span, across.span].transpose(2, 0, 1)[phrases]  # [K, r', c']
        return resize(patches, down, across)

    def _overlaps(self, rows: slice, columns: slice) -> Iterator[tuple[int, tuple[slice, slice]]]:
        """Yield the windows that overlap a part of the grid: the index, and the window's rows and columns in that part."""
        side = self.plan.side
        for window, (top, left) in enumerate(self.plan.corners):
            down = slice(max(rows.start - top, 0), min(rows.stop - top, side))
            across = slice(max(columns.start - left, 0), min(columns.stop - left, side))
            if down.start < down.stop and across.start < across.stop:
                yield window, (down, across)


class WholeScores:
    """Scores in "whole" mode: cosines of the whole image, without a softmax before the argmax."""

    tile_patches = 4

    def __init__(self, cosines: Values, working_size: tuple[int, int], temperature: float) -> None:
        """Store the cosines, [h, w, P] float32."""
        self.size = (cosines.shape[0], cosines.shape[1])
        self.working_size = self.coarse_size = working_size
        self.phrases = cosines.shape[2]
        self.temperature = temperature
        self._cosines = cosines
        self._weights = grid_weights(self.size, working_size)

    def corners(self, axes: Axes, tiles: Ids) -> list[Values]:
        values = interpolate(self._cosines, *_knots(axes, tiles))
        return [values.reshape(len(tiles), -1, self.phrases)]

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        return self._cosines[rows, columns].transpose(2, 0, 1)[phrases]

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        down, across = (
            weights.part(part.start, part.stop) for weights, part in zip(self._weights, (rows, columns), strict=True)
        )
        return resize(self.values(down.span, across.span, phrases), down, across)

    def logits(self, scores: Values) -> Values:
        return scores


class FusedScores:
    """Scores of several scales: the mean of the logits over scales.

    The scores of each scale follow the published protocol. They are resized to the grid of the finest scale, converted to
    logits and averaged with equal weights; the mean is resized to the image.
    """

    tile_patches = 2

    def __init__(self, scales: Sequence[WindowScores | WholeScores]) -> None:
        """Store the scores of each scale; the finest is last."""
        finest = scales[-1]
        self.phrases, self.temperature = finest.phrases, finest.temperature
        self.size, self.working_size = finest.size, finest.working_size
        self._scales = scales
        height, width = (-(-length // _COARSE) for length in self.working_size)
        self.coarse_size = height, width
        self._fine, self._coarse = (
            [grid_weights(scale.size, size) for scale in self._scales] for size in (self.size, self.coarse_size)
        )

    def corners(self, axes: Axes, tiles: Ids) -> list[Values]:
        parts = _sources(axes, tiles)
        return [
            values
            for scale, fine in zip(self._scales, self._fine, strict=True)
            for values in scale.corners(fine, parts)
        ]

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        return self._mean(self._fine, rows, columns, phrases)

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        return self._mean(self._coarse, rows, columns, phrases)

    def logits(self, scores: Values) -> Values:
        return scores

    def _mean(self, grid: Sequence[Axes], rows: slice, columns: slice, phrases: Ids) -> Values:
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for scale, (down, across) in zip(self._scales, grid, strict=True):
            weights = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            values = scale.values(weights[0].span, weights[1].span, phrases)
            total += scale.logits(resize(values, *weights))
        total *= np.float32(1 / len(self._scales))
        return total


PatchScores = WindowScores | WholeScores | FusedScores


def grid_weights(source: tuple[int, int], target: tuple[int, int]) -> Axes:
    """Return the weights that resize a grid of one size to another."""
    rows, columns = (interpolation_weights(*lengths) for lengths in zip(source, target, strict=True))
    return rows, columns


def make_scores(cosines: Sequence[Values], plans: Sequence[WindowPlan], temperature: float) -> PatchScores:
    """Create the scores of an image from its cosines, [windows, h, w, P] float32 at each scale, the finest last."""
    scales = [
        WholeScores(values[0], plan.size, temperature) if plan.whole else WindowScores(values, plan, temperature)
        for values, plan in zip(cosines, plans, strict=True)
    ]
    return scales[0] if len(scales) == 1 else FusedScores(scales)


def compute_cosines(patches: Values, vectors: Values, biases: Values | None = None) -> Values:
    """Compute the cosines of patches [B, h, w, D] with vectors [P, D], plus biases [P] if given: [B, h, w, P].

    All labels computed on a CPU use this product, with or without torch.
    """
    windows, height, width, dim = patches.shape
    pixels, phrases = height * width, len(vectors)
    rows = min(_ROWS, pixels)
    blocks = -(-phrases // max(_PRODUCT // (rows * dim), 1))
    cosines = np.empty((windows, pixels, phrases), np.float32)
    # Multiply window by window: the summation order may depend on the matrix size, and labels must not.
    for window, target in zip(patches.reshape(windows, pixels, dim), cosines, strict=True):
        for columns in np.array_split(np.arange(phrases), blocks):
            part, block = vectors[columns].T, slice(columns[0], columns[-1] + 1)
            stacked = window[: pixels - pixels % rows].reshape(-1, rows, dim)
            target[: pixels - pixels % rows, block] = np.matmul(stacked, part).reshape(-1, len(columns))
            target[pixels - rows :, block] = window[pixels - rows :] @ part
    if biases is not None:
        cosines += biases
    return cosines.reshape(windows, height, width, phrases)


def window_weights(plan: WindowPlan) -> tuple[Values, tuple[Values, Values]]:
    """Return the weight of each row, or column, of a window, [side], and their sums over windows: rows [H], columns [W].

    The weight of a pixel is the product of the weights of its row and its column, and so is the sum.
    """
    outside = np.abs(np.arange(plan.side) - (plan.side - 1) / 2) - plan.side / 2  # minus the distance to the border
    own = np.minimum(-outside / max(plan.fade, 0.5), 1).astype(np.float32)
    down, across = (np.zeros(length, np.float32) for length in plan.size)
    for total, starts in zip((down, across), zip(*plan.corners, strict=True), strict=True):
        for start in set(starts):
            total[start : start + plan.side] += own
    return own, (down, across)


def _sources(axes: Axes, tiles: Ids) -> Ids:
    """Return the parts of the source that tiles [T, 4] of the output depend on, [T, 4]."""
    rows, columns = axes
    top, bottom, left, right = tiles.T
    return np.stack([rows.low[top], rows.high[bottom], columns.low[left], columns.high[right]], 1)


def _knots(axes: Axes, tiles: Ids) -> Axes:
    """Return weights for a grid of points in each tile [T, 4] of the output: for its rows [T, n, 1], for its columns [T, 1, m].

    A resized map is bilinear between the centres of four patches. So any pixel is a mean of the values at the first and last row
    and column and at the centres between them, with weights that are the same for all phrases. Tiles with fewer centres repeat
    their first row or column.
    """
    rows, columns = (_axis_knots(axis, part) for axis, part in zip(axes, (tiles[:, :2], tiles[:, 2:]), strict=True))
    return (
        InterpolationWeights(rows.low[:, :, None], rows.high[:, :, None], rows.weight[:, :, None]),
        InterpolationWeights(columns.low[:, None], columns.high[:, None], columns.weight[:, None]),
    )


def _axis_knots(weights: InterpolationWeights, tiles: Ids) -> InterpolationWeights:
    """Return weights for the first and the last output of each tile, and the sources between, [T, n]."""
    ends = weights.at(tiles)  # [T, 2]
    first, last = ends.low[:, :1], ends.low[:, 1:]
    between = first + np.arange(1, (last - first).max() + 1)
    inside = between <= last
    low, high = (np.where(inside, between, source[:, :1]) for source in (ends.low, ends.high))
    weight = np.where(inside, np.float32(0), ends.weight[:, :1])
    return InterpolationWeights(
        *(
            np.concatenate([end[:, :1], middle, end[:, 1:]], 1)
            for end, middle in ((ends.low, low), (ends.high, high), (ends.weight, weight))
        )
    )


def _join_windows(pieces: Sequence[tuple[Ids, NDArray[Any]]], tiles: int) -> NDArray[Any]:
    """Join the points of all windows: the tiles [t] of each window, and their values [t, n, m, K] -> [T, N, K]."""
    most = max(values.shape[1] * values.shape[2] for _, values in pieces)
    windows = np.bincount(np.concatenate([index for index, _ in pieces]))
    joined = np.empty((tiles, windows.max(), most, pieces[0][1].shape[3]), pieces[0][1].dtype)
    known = np.zeros(tiles, np.intp)
    for index, values in pieces:
        points = values.reshape(len(index), -1, values.shape[3])
        points = np.concatenate([points, np.repeat(points[:, :1], most - points.shape[1], 1)], 1)
        new = known[index] == 0
        joined[index[new]] = points[new][:, :1, None]  # the first point, until there are others
        joined[index, known[index]] = points
        known[index] += 1
    return joined.reshape(tiles, -1, joined.shape[3])
