"""Cosines of the patches of one image -> the scores of phrases in any part of it, as the published protocol makes them.

Scores are to be had exactly, in parts of a grid of pixels (`values`) and at single ones (`at`), and estimated in the cells of
that grid (`controls`, see `cells`), with a bound of how far an estimate may be off (`error`).

Shapes: P phrases, h x w a patch grid, r x c a part of a grid, N pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.cells import Axis, Runs, patch_runs, runs_of
from tipsseg.labelling.resample import Values, resize_rows
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import WindowPlan

Ids = NDArray[np.intp]

#: How far sums of float32 of the size of cosines may be off, ten times over.
_ROUNDING = 1e-5

#: How far a polynomial of the second degree through the first, middle and last point of a run may be off, over the third
#: derivative and the cube of the length of the run.
_CUBIC = 1 / (72 * 3**0.5)

#: The third central moment of what varies by 1 at most.
_SKEW = 1 / (6 * 3**0.5)


class Scores(Protocol):
    """The scores of P phrases on a grid of `size` (height, width), from which the scores of pixels are resized.

    Attributes:
        size: (height, width) of the grid.
        working_size: (height, width) of the image as the model sees it.
        phrases: P.
        temperature: The temperature of the softmax that confidences come from.
        runs: Of the rows and of the columns of the grid.
    """

    size: tuple[int, int]
    working_size: tuple[int, int]
    phrases: int
    temperature: float
    runs: tuple[Runs, Runs]

    def values(self, rows: slice, columns: slice) -> Values:
        """Scores in a part of the grid, [r, c, P] float32. They do not depend on what is asked for with them."""

    def at(self, rows: Ids, columns: Ids) -> Values:
        """The same scores at N pixels of the grid, [N, P]."""

    def logits(self, scores: Values) -> Values:
        """What takes the place of cosines in softmax(cosine / temperature), of scores of any shape, in their memory."""

    def controls(self, rows: slice, columns: slice) -> Values:
        """Logits at control points of the runs, [r, c, P] float32, but for what is the same for all phrases.

        Between these the weights of `cells.Axis` give an estimate of the logits of a pixel of the image.
        """

    def error(self, rows: Axis, columns: Axis) -> Values:
        """How far the difference of the estimates of two phrases may be off in each cell, [cells down, cells across] float32.

        Where the windows that see it change, a pixel is not estimated.
        """


class WindowScores:
    """The protocol's "slide" mode: the mean probability over the windows that saw a pixel.

    The confidence takes the mean probability p of a phrase for exp(cosine): softmax(log(p) / temperature). Where a single window
    saw the pixel this is softmax(cosine / temperature) itself, as the denominator of p is common to all phrases.
    """

    def __init__(self, cosines: Values, plan: WindowPlan, temperature: float) -> None:
        """`cosines` is [windows, h, w, P] float32, in the order of `plan.corners`."""
        self.size = self.working_size = plan.size
        self.phrases = cosines.shape[3]
        self.temperature = temperature
        self._cosines = cosines
        self._side = plan.side
        self._window = {corner: index for index, corner in enumerate(plan.corners)}
        self._weights = interpolation_weights(cosines.shape[1], plan.side)
        # Windows stand in rows and columns: so many of them see a pixel as rows of them see its row, times columns its column.
        starts = [sorted(set(each)) for each in zip(*plan.corners, strict=True)]
        self._seen = [_windows_seen(*lengths, plan.side) for lengths in zip(plan.size, starts, strict=True)]
        most = [int(seen.max()) for seen in self._seen]
        self.runs = (
            runs_of(plan.size[0], tuple(starts[0]), plan.side, cosines.shape[1], max(most) > 1),
            runs_of(plan.size[1], tuple(starts[1]), plan.side, cosines.shape[2], max(most) > 1),
        )

    def values(self, rows: slice, columns: slice) -> Values:
        """Mean probabilities, see Scores."""
        total = np.zeros((rows.stop - rows.start, columns.stop - columns.start, self.phrases), np.float32)
        for (top, left), window in self._window.items():
            down = slice(max(rows.start - top, 0), min(rows.stop - top, self._side))
            across = slice(max(columns.start - left, 0), min(columns.stop - left, self._side))
            if down.start >= down.stop or across.start >= across.stop:
                continue
            y, x = down.start + top, across.start + left
            here = slice(y, y + down.stop - down.start), slice(x, x + across.stop - across.start)
            weights = self._weights.part(down.start, down.stop), self._weights.part(across.start, across.stop)
            part = resize_maps(self._cosines[window], *weights)
            seen = np.outer(self._seen[0][here[0]], self._seen[1][here[1]])
            y, x = y - rows.start, x - columns.start
            total[y : y + part.shape[0], x : x + part.shape[1]] += _shares(part, seen)
        return total

    def at(self, rows: Ids, columns: Ids) -> Values:
        """See Scores."""
        total = np.zeros((len(rows), self.phrases), np.float32)
        for (top, left), window in self._window.items():
            inside = (rows >= top) & (rows < top + self._side) & (columns >= left) & (columns < left + self._side)
            y, x = rows[inside], columns[inside]
            if len(y):
                part = _resized_at(self._cosines[window], self._weights, y - top, x - left)
                total[inside] += _shares(part, self._seen[0][y] * self._seen[1][x])
        return total

    def logits(self, scores: Values) -> Values:
        """log(p), see Scores."""
        return np.log(scores, out=scores)

    def controls(self, rows: slice, columns: slice) -> Values:
        """See Scores."""
        made = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.phrases), np.float32)
        parts = [list(_segments(runs, part)) for runs, part in zip(self.runs, (rows, columns), strict=True)]
        for tops, down in parts[0]:
            for lefts, across in parts[1]:
                here = (
                    slice(down.start - rows.start, down.stop - rows.start),
                    slice(across.start - columns.start, across.stop - columns.start),
                )
                made[here] = self._merged(tops, down, lefts, across)
        for axis, (runs, part) in enumerate(zip(self.runs, (rows, columns), strict=True)):
            _to_bernstein(made, runs, part, axis)
        return made

    def _merged(self, tops: Sequence[int], down: slice, lefts: Sequence[int], across: slice) -> Values:
        """Logits at control points that these windows see."""
        cosines = []
        for top in tops:
            for left in lefts:
                weights = (
                    _at_points(self.runs[0], self._weights, top, down),
                    _at_points(self.runs[1], self._weights, left, across),
                )
                cosines.append(resize_maps(self._cosines[self._window[top, left]], *weights))
        if len(cosines) == 1:
            return cosines[0]  # the rest is common to all phrases
        total = np.zeros_like(cosines[0])
        for each in cosines:
            total += _shares(each, np.float32(1))
        return np.log(total, out=total)

    def error(self, rows: Axis, columns: Axis) -> Values:
        """See Scores; `error_bound` has the proof."""
        shape = len(rows.control), len(columns.control)
        slopes = [_Slope(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in range(2)]
        patch = np.float32(self._side / self._cosines.shape[1])
        least, most = float(self._cosines.min()), float(self._cosines.max())
        for (top, left), window in self._window.items():
            spans = (
                _patches_of(self.runs[0], rows, self._weights, top),
                _patches_of(self.runs[1], columns, self._weights, left),
            )
            here = np.ix_(spans[0][0], spans[1][0])
            for axis, slope in enumerate(slopes):
                steps = np.diff(self._cosines[window], axis=axis)
                steps *= 1 / patch
                squares = np.einsum("ijk,ijk->ij", steps, steps) / np.float32(self.phrases)
                for whole, values in ((slope.most, np.maximum(steps.max(-1), -steps.min(-1))), (slope.square, squares)):
                    whole[here] = np.maximum(whole[here], _largest(values, axis, spans))
        merged = max(float(seen.max()) for seen in self._seen) > 1
        lengths = rows.lengths[:, None], columns.lengths
        bound = error_bound(slopes[0], slopes[1], lengths, most - least, merged)
        return bound + np.float32(_ROUNDING * max(1.0, most, -least))


@dataclass(frozen=True, slots=True, eq=False)
class _Slope:
    """How cosines rise along an axis from pixel to pixel, in each cell.

    Attributes:
        most: The largest slope of a phrase.
        square: The largest mean over phrases of the squares of slopes.
    """

    most: Values
    square: Values


def error_bound(down: _Slope, across: _Slope, lengths: tuple[Values, Values], spread: float, merged: bool) -> Values:
    """How far the difference of the estimates of two phrases may be off in each cell, but for rounding.

    An estimate goes wrong in two steps. Let M be the largest slope of a cosine along an axis, and V the largest variance of slopes
    that a softmax of cosines can have: the mean of squares times exp(range of cosines), or M^2.

    1. It resizes logarithms of probabilities in place of probabilities. By Hoeffding's lemma log(mean of exp(l)) is above the mean
       of l by at most range(l)^2 / 8. The difference of two phrases is off by no more than the larger of the two. The range of l,
       over the pixels that a value is resized from, is at most the sum over both axes of M and of the slope of the logarithm of
       the sum of the softmax, which is a mean of slopes, and sqrt(V) at most.
    2. Where windows are merged it puts a polynomial of the second degree in place of l = log(sum over windows of exp(u)), where
       u is a cosine less the logarithm of the sum. Along an axis u' is within M + sqrt(V) of 0, -u'' is a variance, V at most, and
       -u''' a third central moment, 2 * M * V at most. l''' is E[u{3}] + 3 * Cov(u', u'') + the third central moment of u', under
       the weights of the windows. A covariance is at most a quarter of the product of the ranges. Along the other axis the
       polynomial's weights sum to 1.25 at most.
    """
    total = np.zeros_like(down.most)
    cubic = np.zeros_like(down.most)
    for slope, length, factor in zip((down, across), lengths, (1.25, 1.0), strict=True):
        most, variance = slope.most, np.minimum(slope.square * np.float32(np.exp(min(spread, 80.0))), slope.most**2)
        steepest = most + np.sqrt(variance)
        total += steepest
        third = 2 * most * variance + 1.5 * steepest * variance + _SKEW * (2 * steepest) ** 3
        cubic += factor * third * length**3
    bound: Values = (total**2 / 8 + (2 * _CUBIC * cubic if merged else 0)).astype(np.float32)
    return bound


def _largest(values: Values, axis: int, spans: Sequence[tuple[Ids, Ids, Ids]]) -> Values:
    """The largest value in each cell, of values [h, w] of which one axis stands for the steps between patches."""
    for other, (_, low, high) in enumerate(spans):
        stop = np.maximum(high + (other != axis), low + 1)
        room = np.zeros((2, values.shape[1]) if other == 0 else (values.shape[0], 2), np.float32)
        bounds = np.stack([low, stop], 1).reshape(-1)
        reduced = np.maximum.reduceat(np.concatenate([values, room], other), bounds, other)
        values = reduced.take(np.arange(0, len(bounds), 2), other)
    return values


class WholeScores:
    """The protocol's "whole" mode: cosines of one map of the whole image, without a softmax before the argmax."""

    def __init__(self, cosines: Values, working_size: tuple[int, int], temperature: float) -> None:
        """`cosines` is [h, w, P] float32."""
        self.size = (cosines.shape[0], cosines.shape[1])
        self.working_size = working_size
        self.phrases = cosines.shape[2]
        self.temperature = temperature
        self._cosines = cosines
        self.runs = patch_runs(self.size[0]), patch_runs(self.size[1])

    def values(self, rows: slice, columns: slice) -> Values:
        """Cosines, see Scores."""
        return self._cosines[rows, columns]

    def at(self, rows: Ids, columns: Ids) -> Values:
        """See Scores."""
        return self._cosines[rows, columns]

    def logits(self, scores: Values) -> Values:
        """The cosines as they are."""
        return scores

    def controls(self, rows: slice, columns: slice) -> Values:
        """The cosines: each patch is a run of its own, see Scores."""
        return self._cosines[rows, columns]

    def error(self, rows: Axis, columns: Axis) -> Values:
        """Rounding alone, see Scores."""
        shape = len(rows.control), len(columns.control)
        return np.full(shape, _ROUNDING * max(1.0, float(np.abs(self._cosines).max())), np.float32)


def _windows_seen(length: int, starts: Sequence[int], side: int) -> Values:
    """How many windows see each pixel of an axis, [length] float32."""
    seen = np.zeros(length, np.float32)
    for start in starts:
        seen[start : start + side] += 1
    return seen


def _shares(cosines: Values, seen: Values | np.float32) -> Values:
    """softmax(cosines) over the last axis, over how many windows saw each pixel; in the memory of the cosines."""
    np.exp(cosines, out=cosines)
    cosines *= (1 / (cosines.sum(-1) * seen))[..., None]
    return cosines


def resize_maps(cosines: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """A map [h, w, P] of patches, resized: [r, c, P]."""
    patches = cosines[rows.span, columns.span]
    height, _, phrases = patches.shape
    # Columns first, as `resample.resize` does.
    across = resize_rows(patches, columns.within)
    return resize_rows(across.reshape(height, -1), rows.within).reshape(len(rows.low), -1, phrases)


def _resized_at(cosines: Values, weights: InterpolationWeights, rows: Ids, columns: Ids) -> Values:
    """What `resize_maps` gives at N pixels of a window, [N, P]."""
    low, high, share = weights.low[columns], weights.high[columns], weights.weight[columns][:, None]
    above, below = (
        blend(cosines[patches, low], cosines[patches, high], share)
        for patches in (weights.low[rows], weights.high[rows])
    )
    return blend(above, below, weights.weight[rows][:, None])


def blend(low: Values, high: Values, weight: Values) -> Values:
    """What is between two values, in the operations of `resample`; in the memory of `high`."""
    high -= low
    high *= weight
    high += low
    return high


def _segments(runs: Runs, part: slice) -> Iterator[tuple[tuple[int, ...], slice]]:
    """Control points of an axis that the same windows see, within a part of it."""
    starts, begin = runs.starts, 0
    for run in range(1, len(runs.first) + 1):
        if run == len(runs.first) or runs.windows[run] != runs.windows[begin]:
            span = slice(max(int(starts[begin]), part.start), min(int(starts[run]), part.stop))
            if span.start < span.stop:
                yield runs.windows[begin], span
            begin = run


def _at_points(runs: Runs, window: InterpolationWeights, start: int, part: slice) -> InterpolationWeights:
    """How control points are resized from the patches of a window that begins at `start`."""
    position, run = runs.positions
    first = runs.first[run[part]] - start
    low, high = window.low[first], window.high[first]
    whole = position[part] - start
    before = np.floor(whole).astype(np.intp)
    weight = window.weight
    behind = np.minimum(before + 1, len(weight) - 1)
    share = (whole - before).astype(np.float32)
    return InterpolationWeights(low, high, weight[before] * (1 - share) + weight[behind] * share)


def _to_bernstein(made: Values, runs: Runs, part: slice, axis: int) -> None:
    """From values at the first, middle and last point of runs to the coefficients of Bernstein's polynomials through them."""
    middle = runs.middles
    middle = middle[(middle > part.start) & (middle < part.stop - 1)] - part.start
    if axis == 0:
        made[middle] = 2 * made[middle] - (made[middle - 1] + made[middle + 1]) / 2
    else:
        made[:, middle] = 2 * made[:, middle] - (made[:, middle - 1] + made[:, middle + 1]) / 2


def _patches_of(runs: Runs, axis: Axis, window: InterpolationWeights, start: int) -> tuple[Ids, Ids, Ids]:
    """The cells that a window sees some of, and the first and the last patch of the window that matter to each."""
    first = np.array([runs.first[a] for a, _ in axis.runs]) - 1 - start
    last = np.array([runs.last[b] for _, b in axis.runs]) - start
    seen = np.flatnonzero((last >= 0) & (first < len(window.low)))
    side = len(window.low) - 1
    return seen, window.low[np.clip(first[seen], 0, side)], window.high[np.clip(last[seen], 0, side)]
