"""Compute the scores of phrases in any part of an image from the cosines of its patches, as in the published protocol.

Shapes: P phrases, h x w a patch grid, r x c a part of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from tipsseg.labelling.scoring.resample import Ids, Values, resize, resize_rows
from tipsseg.labelling.scoring.sums import WindowSums
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import WindowPlan

#: Patches and multiplications per matrix product. OpenBLAS does not divide products of this size between threads, whose waiting
#: would keep cores busy for milliseconds after every product.
_ROWS, _PRODUCT = 16, 1 << 18

#: With several scales, the coarse grid has one cell per _COARSE pixels of the finest resized image, along each axis.
_COARSE = 4


class Scores(Protocol):
    """Scores of P phrases on a grid, which are resized to the image.

    Attributes:
        size: (height, width) of the grid.
        working_size: (height, width) of the resized image at the finest scale.
        coarse_size: (height, width) of a coarser grid, for values that change little from pixel to pixel.
        tile_patches: Preferred side of a tile in patches.
        phrases: P.
        temperature: Temperature of the softmax for confidences.
    """

    size: tuple[int, int]
    working_size: tuple[int, int]
    coarse_size: tuple[int, int]
    tile_patches: int
    phrases: int
    temperature: float

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> Sequence[Values]:
        """Return cosines at a few points, [N, P] per scale, such that the cosines at all pixels of `rows` and `columns` are
        means of them.

        The weights of these means are the same for all phrases.
        """

    def reach(self, rows: slice, columns: slice) -> Ids | None:
        """Return the part of the grid, [N, 4], whose cosines depend on each point of `corners`: first and last row, then column.

        None if that is not known.
        """

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """Return the scores of some phrases in a part of the grid, [K, r, c] float32. They do not depend on other phrases."""

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """Return the logits of some phrases in a part of the coarse grid, [K, r, c] float32."""

    def logits(self, scores: Values) -> Values:
        """Convert scores in place to logits, which replace cosines in softmax(cosine / temperature)."""


class WindowScores:
    """Scores in "slide" mode: the mean probability over the windows at a pixel.

    The confidence is softmax(log(p) / temperature) for the mean probability p of a phrase. With a single window at the pixel, this
    equals softmax(cosine / temperature), because the denominator of p is the same for all phrases.

    Attributes:
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
        self._counts = count_windows(plan)
        self._sums = [WindowSums(window, plan.side) for window in cosines]
        self._factors = np.empty((len(cosines), plan.side, plan.side), np.float32)
        self._known = np.zeros((len(cosines), plan.side), bool)  # the rows of `_factors` that are computed

    def _factor(self, window: int, rows: slice) -> Values:
        """Return the factors that turn exp(cosine) into a window's part of the mean, [r, side], for some rows of the window.

        They are computed at first use: a class that is labelled alone needs few rows.
        """
        missing = np.flatnonzero(~self._known[window, rows])
        if len(missing):
            (top, left), (down, across) = self.plan.corners[window], self._counts
            part, sums = self._sums[window].rows(slice(rows.start + int(missing[0]), rows.start + int(missing[-1]) + 1))
            sums *= np.outer(down[top:][part], across[left:][: self.plan.side])
            np.reciprocal(sums, out=self._factors[window, part])
            self._known[window, part] = True
        return self._factors[window, rows]

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> list[Values]:
        corners = []
        for window, (down, across) in self._overlaps(rows.span, columns.span):
            weights = self._weights.part(down.start, down.stop), self._weights.part(across.start, across.stop)
            corners.append(_corners(self.cosines[window], *weights))
        return [np.concatenate(corners)]

    def reach(self, rows: slice, columns: slice) -> Ids:
        found = []
        for window, (down, across) in self._overlaps(rows, columns):
            top, left = self.plan.corners[window]
            y = _reach(self._weights.part(down.start, down.stop)) + (top + down.start)  # [n, 2]
            x = _reach(self._weights.part(across.start, across.stop)) + (left + across.start)  # [m, 2]
            found.append(np.concatenate([np.repeat(y, len(x), 0), np.tile(x, (len(y), 1))], 1))  # [n * m, 4]
        return np.concatenate(found)

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for window, (down, across) in self._overlaps(rows, columns):
            part = self._resize_window(window, (down, across), phrases)  # [K, r', c']
            np.exp(part, out=part)
            part *= self._factor(window, down)[:, across]
            top, left = self.plan.corners[window]
            y, x = down.start + top - rows.start, across.start + left - columns.start
            total[:, y : y + part.shape[1], x : x + part.shape[2]] += part
        return total

    def at(self, rows: Ids, columns: Ids) -> Values:
        """Return the scores of all phrases at single pixels of the grid, [n] each: [P, n], bit-identical to those of `values`."""
        side, (down, across) = self.plan.side, self._counts
        windows = down[rows] * across[columns]  # [n]
        total = np.zeros((len(rows), self.phrases), np.float32)
        for window, (top, left) in enumerate(self.plan.corners):
            y, x = rows - top, columns - left
            inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
            y, x = y[inside], x[inside]
            part = np.exp(_interpolate_cosines(self.cosines[window], self._weights, y, x))
            part *= (1 / (self._sums[window].at(y, x) * windows[inside]))[:, None]
            total[inside] += part
        return total.T

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        (window, inside), *others = self._overlaps(rows, columns)
        if others:
            return self.logits(self.values(rows, columns, phrases))
        logits = self._resize_window(window, inside, phrases)  # a single window needs neither exp nor log
        logits += np.log(self._factor(window, inside[0])[:, inside[1]])
        return logits

    def logits(self, scores: Values) -> Values:
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
        self._weights = [interpolation_weights(*lengths) for lengths in zip(self.size, working_size, strict=True)]

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> list[Values]:
        return [_corners(self._cosines, rows, columns)]

    def reach(self, rows: slice, columns: slice) -> None:
        return None

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

    The scores of each scale are those of the published protocol. They are resized to the grid of the finest scale, converted to
    logits and averaged with equal weights; the mean is resized to the image.
    """

    tile_patches = 2

    def __init__(self, cosines: Sequence[Values], plans: Sequence[WindowPlan], temperature: float) -> None:
        """Store the cosines of each scale, [windows, h, w, P] float32, in the order of the plan's corners; the finest is last."""
        self.phrases, self.temperature = cosines[-1].shape[3], temperature
        self.working_size = plans[-1].size
        self._scales: list[WindowScores | WholeScores] = [
            WholeScores(values[0], plan.size, temperature) if plan.whole else WindowScores(values, plan, temperature)
            for values, plan in zip(cosines, plans, strict=True)
        ]
        self.size = self._scales[-1].size
        height, width = (-(-length // _COARSE) for length in self.working_size)
        self.coarse_size = height, width
        self._fine, self._coarse = (
            [
                [interpolation_weights(*lengths) for lengths in zip(scale.size, size, strict=True)]
                for scale in self._scales
            ]
            for size in (self.size, self.coarse_size)
        )

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> list[Values]:
        spans = rows.span, columns.span
        return [
            values
            for scale, axes in zip(self._scales, self._fine, strict=True)
            for values in scale.corners(
                *(axis.part(span.start, span.stop) for axis, span in zip(axes, spans, strict=True))
            )
        ]

    def reach(self, rows: slice, columns: slice) -> None:
        return None

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        return self._mean(self._fine, rows, columns, phrases)

    def coarse_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        return self._mean(self._coarse, rows, columns, phrases)

    def logits(self, scores: Values) -> Values:
        return scores

    def _mean(
        self, grid: Sequence[Sequence[InterpolationWeights]], rows: slice, columns: slice, phrases: Ids
    ) -> Values:
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for scale, (down, across) in zip(self._scales, grid, strict=True):
            weights = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            values = scale.values(weights[0].span, weights[1].span, phrases)
            total += scale.logits(resize(values, *weights))
        total *= np.float32(1 / len(self._scales))
        return total


def make_scores(cosines: Sequence[Values], plans: Sequence[WindowPlan], temperature: float) -> Scores:
    """Create the scores of an image from its cosines, [windows, h, w, P] float32 at each scale."""
    if len(plans) > 1:
        return FusedScores(cosines, plans, temperature)
    if plans[0].whole:
        return WholeScores(cosines[0][0], plans[0].size, temperature)
    return WindowScores(cosines[0], plans[0], temperature)


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


def count_windows(plan: WindowPlan) -> tuple[Values, Values]:
    """Count the windows over each row and each column, [H] and [W]. The number at a pixel is the product of the two."""
    down, across = (np.zeros(length, np.float32) for length in plan.size)
    for counts, starts in zip((down, across), zip(*plan.corners, strict=True), strict=True):
        for start in set(starts):
            counts[start : start + plan.side] += 1
    return down, across


def _interpolate_cosines(window: Values, weights: InterpolationWeights, rows: Ids, columns: Ids) -> Values:
    """Return the cosines at some pixels of a window: [h, w, P] -> [n, P]."""

    def interpolate_columns(patch_rows: Ids) -> Values:
        low = window[patch_rows, weights.low[columns]]
        return (window[patch_rows, weights.high[columns]] - low) * weights.weight[columns, None] + low

    low = interpolate_columns(weights.low[rows])
    return (interpolate_columns(weights.high[rows]) - low) * weights.weight[rows, None] + low


def _corners(cosines: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Return the cosines at the corners of a resized part, and at the patch centres inside it: [h, w, P] -> [N, P].

    A resized map is bilinear between the centres of four patches. So any pixel is a mean of the values at the first and last
    row and column and at the centres between them, with weights that are the same for all phrases.
    """
    down, across = _knots(rows), _knots(columns)
    patches = cosines[down.span, across.span]  # [h', w', P]
    height, width, phrases = patches.shape
    values = resize_rows(patches.reshape(1, height, -1), down)[0]  # [n, w' * P]
    return resize_rows(values.reshape(-1, width, phrases), across).reshape(-1, phrases)


def _knots(weights: InterpolationWeights) -> InterpolationWeights:
    """Return weights for the first and the last output, and for the sources between them."""
    between = np.arange(weights.low[0] + 1, weights.low[-1] + 1)
    ends = [0, -1]
    low, high, weight = weights.low[ends], weights.high[ends], weights.weight[ends]
    return InterpolationWeights(
        np.concatenate([low[:1], between, low[1:]]),
        np.concatenate([high[:1], between, high[1:]]),
        np.concatenate([weight[:1], np.zeros(len(between), np.float32), weight[1:]]),
    )


def _reach(weights: InterpolationWeights) -> Ids:
    """Return the first and the last output that depends on each of the `_knots`, [n, 2]."""
    low = weights.low
    between = np.arange(low[0] + 1, low[-1] + 1)
    first = np.searchsorted(low, np.concatenate([low[:1], between - 1, low[-1:]]), "left")
    last = np.searchsorted(low, np.concatenate([low[:1], between, low[-1:]]), "right") - 1
    return np.stack([first, last], 1)
