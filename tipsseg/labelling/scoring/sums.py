"""Sum exp(cosine) over phrases at every pixel of a window, from few points of each cell.

A cell lies between the centres of four patches. In it, every cosine is bilinear, so the sum is a sum of exponentials, which is very
close to a polynomial along each axis. The points of a cell are the extrema of a Chebyshev polynomial, ends included, so neighbouring
cells share those at their border. A polynomial through n of them is off from exp(b t), t in [0, 1], by at most 4 (b / 4)^n / n! of its
largest value; n is chosen such that this is like the rounding of float32. With n = 5, a cell takes 16 points for 196 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from tipsseg.labelling.scoring.resample import Ids, Values

#: Numbers of points along an axis of a cell.
_FEWEST, _MOST = 3, 10

#: Largest error of the polynomial, relative to the sum; that of float32 is of this size.
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
        self._points, self._weights = _polynomial(self._patch, _count(steepest))

    def rows(self, rows: slice) -> tuple[slice, Values]:
        """Return the sums in all rows of the cells that contain `rows`: their rows, and the sums [r, side]."""
        first, last = self._cell(rows.start), self._cell(rows.stop - 1)
        step = max(_CHUNK // ((len(self._points) - 1) ** 2 * self._cosines[0].size), 1)
        pieces = [self._sum(start, min(start + step, last + 1)) for start in range(first, last + 1, step)]
        return slice(self._first_row(first), self._first_row(last + 1)), np.concatenate(pieces)

    def at(self, rows: Ids, columns: Ids) -> Values:
        """Return the sums at single pixels, [n], by the operations of `rows`."""
        sums = np.empty(len(rows), np.float32)
        step = max(_CHUNK // (len(self._points) ** 2 * self._cosines.shape[2]), 1)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            (y, down), (x, across) = (self._place(pixels[part]) for pixels in (rows, columns))  # [m] and [n, m] each
            lines = np.stack([self._cosines[y + i, x + j] for i in (0, 1) for j in (0, 1)])  # [4, m, P]
            lines = self._between(lines.reshape(2, 2, *lines.shape[1:]))  # [n, 2, m, P]
            points = self._sum_phrases(np.moveaxis(lines, 1, 2))  # [n, m, n]
            sums[part] = _mix(_mix(np.moveaxis(points, 2, 0), across[:, None]), down)
        return sums

    def _place(self, pixels: Ids) -> tuple[Ids, Values]:
        """Return the cell of each pixel along an axis, [m], and the weights of its points, [n, m]."""
        cells = np.clip((pixels - self._patch // 2) // self._patch, 0, max(self._inner - 1, 0))
        inside = np.clip(pixels - self._patch // 2 - cells * self._patch + 1, 0, self._patch + 1)
        return cells, self._weights[inside if self._inner else 0 * inside].T

    def _cell(self, row: int) -> int:
        return int(self._place(np.array([row]))[0][0])

    def _first_row(self, cell: int) -> int:
        """Return the first pixel row of a cell; the first and the last cell include those at the edges of the window."""
        if cell == 0:
            return 0
        return self._side if cell >= self._inner else self._patch // 2 + cell * self._patch

    def _sum(self, start: int, stop: int) -> Values:
        """Return the sums in some rows of cells, [r, side]."""
        points = self._sum_phrases(self._between(self._cosines[start : stop + 1]))  # [Y, X]
        across = self._pixels(points.T, 0, self._inner).T  # [Y, side]
        return self._pixels(np.ascontiguousarray(across), start, stop)

    def _between(self, corners: Values) -> Values:
        """Return the cosines at the points between neighbours along the first axis, [h, ...] -> [(h - 1) * (n - 1) + 1, ...]."""
        points = self._points[:-1].reshape(-1, *[1] * (corners.ndim - 1))
        between = corners[:-1, None] + np.diff(corners, axis=0)[:, None] * points
        return np.concatenate([between.reshape(-1, *corners.shape[1:]), corners[-1:]])

    def _sum_phrases(self, lines: Values) -> Values:
        """Return the sums at the points between neighbours along the last but one axis, [..., w, P] -> [..., (w - 1) * (n - 1) + 1]."""
        # Not by `_between`, because joining the last point would copy everything.
        left, steps, last = lines[..., :-1, None, :], np.diff(lines, axis=-2)[..., None, :], lines[..., -1, :]
        sums = np.zeros((*left.shape[:-2], len(self._points) - 1), np.float32)  # [..., cells, n - 1]
        ends = np.zeros((*lines.shape[:-2], 1), np.float32)
        # The phrases of a part must not depend on the number of cells.
        chunk = max(_CHUNK // (len(self._points) ** 2 * self._cosines.shape[0]), 1)
        for first in range(0, lines.shape[-1], chunk):
            phrases = slice(first, first + chunk)
            values = steps[..., phrases] * self._points[:-1, None]
            values += left[..., phrases]
            # np.sum takes three times as long for so few values.
            sums += np.einsum("...p->...", np.exp(values, out=values))
            ends[..., 0] += np.einsum("...p->...", np.exp(last[..., phrases]))
        return np.concatenate([sums.reshape(*lines.shape[:-2], -1), ends], -1)

    def _pixels(self, points: Values, start: int, stop: int) -> Values:
        """Return the values at the pixels of some cells along the first axis, from those at their points, [Y, k] -> [r, k]."""
        step, cells = len(self._points) - 1, min(stop, self._inner) - start
        inner = [points[k :: step][: max(cells, 0), None] for k in range(step + 1)]  # [cells, 1, k] each
        begin, end = self._patch // 2, self._patch // 2 + self._inner * self._patch
        return np.concatenate(
            [
                np.repeat(points[:1], begin if start == 0 else 0, 0),
                _mix(inner, self._weights[1:-1].T[:, :, None]).reshape(-1, points.shape[1]),
                np.repeat(points[-1:], self._side - end if stop >= self._inner else 0, 0),
            ]
        )


def _mix(values: Sequence[Values] | Values, weights: Values) -> Values:
    """Return the sum of products along the first axis. Unlike BLAS, it rounds each element in the same way, whatever the others."""
    total = values[0] * weights[0]
    product = np.empty_like(total)
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total += np.multiply(value, weight, out=product)
    return total


def _count(steepest: float) -> int | None:
    """Return the number of points for cosines that change by `steepest` across a cell; None if the polynomial is no gain."""
    for number in range(_FEWEST, _MOST + 1):
        if 4 * (steepest / 4) ** number / math.factorial(number) <= _ERROR:
            return number
    return None


@cache
def _polynomial(patch: int, number: int | None) -> tuple[Values, Values]:
    """Return n points in a cell, 0..1, and the weights of their values at its pixels, [patch + 2, n].

    The first and the last row of weights are for the edges of the cell, at 0 and 1. None: the points are these places.
    """
    pixels = (np.arange(patch) + patch // 2 + 0.5 - patch / 2) / patch
    places = np.concatenate([[0.0], pixels, [1.0]])
    if number is None:
        return places.astype(np.float32), np.eye(len(places), dtype=np.float32)
    points = 0.5 - 0.5 * np.cos(np.arange(number) * np.pi / (number - 1))
    weights = np.ones((len(places), number))
    for one in range(number):
        for other in range(number):
            if other != one:
                weights[:, one] *= (places - points[other]) / (points[one] - points[other])
    return points.astype(np.float32), weights.astype(np.float32)
