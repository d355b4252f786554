"""Resize maps bilinearly, or parts of them, and sum exp(cosine) over phrases at every pixel of a window.

Every resized value depends only on its neighbours. The weights may cover a part of the outputs; then `values` is the part of the
source in `InterpolationWeights.span`.

A sum is computed from few points of each cell. A cell lies between the centres of four patches. In it, every cosine is bilinear,
so along a row its exp is a geometric progression, and the sum is very close to a polynomial. The n points of a cell along an axis
are at equal distances and include its ends, so neighbouring cells share points. A polynomial through them is off from exp(b t),
t in [0, 1], by at most max |t (t - 1 / (n - 1)) ... (t - 1)| b^n / n! of its largest value; n is chosen such that this is like the
rounding of float32. With n = 5, a cell takes 16 points for 196 pixels.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tipsseg.labelling.view import InterpolationWeights

Values = NDArray[np.float32]
Ids = NDArray[np.intp]


def resize_columns(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the columns to n weights: [..., h, w] float32 -> [..., h, n]."""
    # Turned around, because taking whole rows is so much faster than single values that turning pays off.
    return _turn(resize_rows(_turn(values), weights))


def resize_rows(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the rows to n weights: [..., h, w] float32 -> [..., n, w]."""
    axis = values.ndim - 2
    assert values.shape[axis] == weights.span.stop - weights.span.start
    # Compute elementwise and in this order, so that a value does not depend on the other values.
    steps = np.empty_like(values)
    np.subtract(values[..., 1:, :], values[..., :-1, :], out=steps[..., :-1, :])
    steps[..., -1, :] = 0
    low = weights.low - weights.low[0]
    resized = steps.take(low, axis)
    resized *= weights.weight[:, None]
    resized += values.take(low, axis)
    return resized


def resize(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Resize rows and columns: [..., h, w] float32 -> [..., n, m]."""
    # Resize columns first, while there are few rows.
    return resize_rows(resize_columns(values, columns), rows)


def interpolate(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Return values between the points of a grid, [h, w, P] -> [..., P]. The weights have shapes that can be broadcast to [...]."""

    def interpolate_columns(patch_rows: Ids) -> Values:
        low = values[patch_rows, columns.low]
        return (values[patch_rows, columns.high] - low) * columns.weight[..., None] + low

    low = interpolate_columns(rows.low)
    return (interpolate_columns(rows.high) - low) * rows.weight[..., None] + low


def _turn(values: Values) -> Values:
    """Return a copy with the last two axes swapped."""
    return np.ascontiguousarray(values.swapaxes(-1, -2))


#: Numbers of points along an axis of a cell.
_FEWEST, _MOST = 3, 7

#: Largest error of the polynomial, relative to the sum; float32 has an error of this size.
_ERROR = 5e-7

#: Values per sum, phrases x points: 1 MB, which fits a core's cache.
_CHUNK = 1 << 18


class WindowSums:
    """The sums of a window. They do not depend on which rows are computed together."""

    def __init__(self, cosines: Values, side: int) -> None:
        """Prepare for the cosines of a window of `side` pixels, [h, h, P]."""
        self._side, self._inner = side, len(cosines) - 1  # the rows of cells that contain pixels
        self._patch = side // len(cosines)
        # A single patch is all corners of a cell.
        self._cosines = np.repeat(np.repeat(cosines, 2, 0), 2, 1) if len(cosines) == 1 else cosines
        steepest = max(float(np.abs(np.diff(cosines, axis=axis)).max(initial=0)) for axis in (0, 1))
        self._weights = _polynomial(self._patch, _count(steepest, self._patch))  # [patch, n]
        self._intervals = self._weights.shape[1] - 1

    def rows(self, rows: slice) -> tuple[slice, Values]:
        """Return the sums in all rows of the cells that contain `rows`: their rows, and the sums [r, side]."""
        first, last = self._cell(rows.start), self._cell(rows.stop - 1)
        step = max(_CHUNK // (self._intervals * self._cosines[0].size), 1)
        pieces = [self._sum(start, min(start + step, last + 1)) for start in range(first, last + 1, step)]
        return slice(self._first_row(first), self._first_row(last + 1)), np.concatenate(pieces)

    def _cell(self, row: int) -> int:
        return min(max(row - self._patch // 2, 0) // self._patch, max(self._inner - 1, 0))

    def _first_row(self, cell: int) -> int:
        """Return the first pixel row of a cell; the first and the last cell include those at the edges of the window."""
        if cell == 0:
            return 0
        return self._side if cell >= self._inner else self._patch // 2 + cell * self._patch

    def _sum(self, start: int, stop: int) -> Values:
        """Return the sums in some rows of cells, [r, side]."""
        points = self._sum_phrases(self._between(self._cosines[start : stop + 1]))  # [Y, X]
        step, begin, end = self._intervals, self._patch // 2, self._patch // 2 + self._inner * self._patch
        # One product per row of points, and one per row of cells, because the rounding of a product may depend on its shape.
        (down, right), cells = points.strides, (len(points), self._inner, step + 1)
        inner = np.matmul(as_strided(points, cells, (down, step * right, right)), self._weights.T)  # [Y, cells, patch]
        edges = np.repeat(points[:, :1], begin, 1), np.repeat(points[:, -1:], self._side - end, 1)
        across = np.concatenate([edges[0], inner.reshape(len(points), -1), edges[1]], 1)  # [Y, side]
        (down, right), cells = across.strides, (max(min(stop, self._inner) - start, 0), step + 1, self._side)
        inner = np.matmul(self._weights, as_strided(across, cells, (step * down, down, right)))  # [cells, patch, side]
        above = np.repeat(across[:1], begin if start == 0 else 0, 0)
        below = np.repeat(across[-1:], self._side - end if stop >= self._inner else 0, 0)
        return np.concatenate([above, inner.reshape(-1, self._side), below])

    def _between(self, corners: Values) -> Values:
        """Return the cosines at the points between rows of corners, [h, w, P] -> [(h - 1) * (n - 1) + 1, w, P]."""
        points = np.arange(self._intervals, dtype=np.float32)[:, None, None] / np.float32(self._intervals)
        between = corners[:-1, None] + np.diff(corners, axis=0)[:, None] * points
        return np.concatenate([between.reshape(-1, *corners.shape[1:]), corners[-1:]])

    def _sum_phrases(self, lines: Values) -> Values:
        """Return the sums at the points between columns of corners, [Y, w, P] -> [Y, (w - 1) * (n - 1) + 1]."""
        height, width, phrases = lines.shape
        inner = np.zeros((height, width - 1, self._intervals), np.float32)  # [Y, cells, n - 1]
        ends = np.zeros((height, 1), np.float32)
        # The phrases of a part must not depend on the number of cells.
        chunk = max(_CHUNK // (self._intervals * self._cosines.shape[0]), 1)
        for first in range(0, phrases, chunk):
            part = lines[..., first : first + chunk]
            steps = np.diff(part, axis=1) / np.float32(self._intervals)
            factors, values = np.exp(steps), np.exp(part)
            # np.sum takes three times as long for so few values.
            ends[:, 0] += np.einsum("yp->y", values[:, -1])
            values = values[:, :-1]
            power = factors.copy()
            inner[..., 0] += np.einsum("ycp->yc", values)
            for point in range(1, self._intervals):
                if point % 4 == 0:  # rounding errors must not add up
                    np.exp(steps * np.float32(point), out=power)
                inner[..., point] += np.einsum("ycp,ycp->yc", values, power)
                power *= factors
        return np.concatenate([inner.reshape(height, -1), ends], 1)


def _count(steepest: float, patch: int) -> int:
    """Return the number of points for cosines that change by `steepest` across a cell.

    If the polynomial is no gain, the points include all pixels, which lie at odd or even half pixels of the cell.
    """
    for number in range(_FEWEST, _MOST + 1):
        if _largest(number) * steepest**number / math.factorial(number) <= _ERROR:
            return number
    return 2 * patch + 1


@cache
def _largest(number: int) -> float:
    """Return the largest absolute product of the distances from n points, at equal distances in [0, 1], to a place in [0, 1]."""
    places = np.linspace(0, 1, 1000)
    return float(np.abs(np.prod(places[:, None] - np.linspace(0, 1, number), 1)).max())


@cache
def _polynomial(patch: int, number: int) -> Values:
    """Return the weights of n points of a cell at its pixels, [patch, n]."""
    pixels = (np.arange(patch) + patch // 2 + 0.5 - patch / 2) / patch
    if number == 2 * patch + 1:
        return np.eye(number, dtype=np.float32)[np.rint(pixels * 2 * patch).astype(int)]
    points = np.linspace(0, 1, number)
    weights = np.ones((patch, number))
    for one in range(number):
        for other in range(number):
            if other != one:
                weights[:, one] *= (pixels - points[other]) / (points[one] - points[other])
    return weights.astype(np.float32)
