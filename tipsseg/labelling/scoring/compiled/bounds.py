"""Find the phrases that may win in a tile or affect its confidence, see `assign.match`."""

from __future__ import annotations

import numpy as np

from tipsseg.labelling.scoring.compiled.inputs import Axis, Index, Limits, Numbers, Span, Windows
from tipsseg.labelling.scoring.compiled.maths import ZERO, compiled
from tipsseg.labelling.scoring.resample import Values

#: Maximum number of leading phrases in a bound.
_LEADERS = 4


@compiled
def find_candidates(
    windows: Windows, rows: Span, columns: Span, owners: Numbers, limits: Limits, chosen: Numbers
) -> Span:
    """Write the candidates of a tile to `chosen`: first phrases of groups that may win or come close, then the others.

    Return the number of the former, and the total.
    """
    phrases = len(owners)
    margins, own = np.empty(phrases, np.float32), np.zeros(phrases, np.float32)
    corners = _corners(windows, rows, columns)
    _margins(corners, 0, phrases, margins)
    near, start = 0, 0
    contends = np.zeros(phrases, np.bool_)
    while start < phrases:
        stop = start + 1
        while stop < phrases and owners[stop] == owners[start]:
            stop += 1
        if margins[start:stop].min() <= limits.near:
            contends[start:stop] = True
            if stop > start + 1:
                _margins(corners, start, stop, own)
            for g in range(start, stop):
                if own[g] <= limits.rounding:
                    chosen[near] = g
                    near += 1
        start = stop
    far = near
    for g in range(phrases):
        if not contends[g] and margins[g] <= limits.far:
            chosen[far] = g
            far += 1
    return near, far


@compiled
def clip_span(first: Index, last: Index, corner: Index, side: Index) -> Span:
    """Return the first and the last pixel of a window inside a tile. If there are none, the last is before the first."""
    return max(first - corner, 0), min(last - corner, side - 1)


@compiled
def _corners(windows: Windows, rows: Span, columns: Span) -> Values:
    """Return cosines whose means include all cosines in a tile, [N, P], see `scores.Scores.corners`. Spans are (first, last)."""
    count: Index = 0
    side, phrases = windows.factors.shape[1], windows.by_patch.shape[3]
    for corner in windows.corners:
        top, bottom = clip_span(*rows, corner[0], side)
        left, right = clip_span(*columns, corner[1], side)
        if top <= bottom and left <= right:
            count += _knots(windows.axis, top, bottom) * _knots(windows.axis, left, right)
    corners = np.empty((count, phrases), np.float32)
    count = 0
    for window in range(len(windows.corners)):
        cosines = windows.by_patch[window]
        top, bottom = clip_span(*rows, windows.corners[window, 0], side)
        left, right = clip_span(*columns, windows.corners[window, 1], side)
        if top > bottom or left > right:
            continue
        for i in range(_knots(windows.axis, top, bottom)):
            upper, lower, down = _knot(windows.axis, top, bottom, i)
            for j in range(_knots(windows.axis, left, right)):
                near, far, across = _knot(windows.axis, left, right, j)
                for g in range(phrases):
                    before = cosines[upper, near, g] + (cosines[lower, near, g] - cosines[upper, near, g]) * down
                    after = cosines[upper, far, g] + (cosines[lower, far, g] - cosines[upper, far, g]) * down
                    corners[count, g] = before + (after - before) * across
                count += 1
    return corners


@compiled
def _knots(axis: Axis, first: Index, last: Index) -> Index:
    """Count the knots along an axis: the first and the last pixel, and the centres of patches between them."""
    return np.int64(axis.low[last]) - np.int64(axis.low[first]) + 2


@compiled
def _knot(axis: Axis, first: Index, last: Index, number: Index) -> tuple[np.uint32, np.uint32, np.float32]:
    """Return a knot by its number: the patches before and after it, and the weight of the latter."""
    if number == 0:
        return axis.low[first], axis.high[first], axis.weight[first]
    if number == _knots(axis, first, last) - 1:
        return axis.low[last], axis.high[last], axis.weight[last]
    centre = np.uint32(axis.low[first] + number)
    return centre, centre, ZERO


@compiled
def _margins(corners: Values, start: Index, stop: Index, margins: Values) -> None:
    """Write a lower bound on the distance of some phrases from a mean of leading phrases: [N, P] -> `margins` [P]."""
    count = len(corners)
    margins[start:stop] = ZERO
    for n in range(count):
        for g in range(start, stop):
            margins[g] += corners[n, g]
    leader = start + np.argmax(margins[start:stop])
    bound, wider = np.empty(count, np.float32), np.empty(count, np.float32)
    for n in range(count):
        bound[n] = corners[n, leader]
    for number in range(2, _LEADERS + 1):
        worst = np.argmin(bound)
        leader = start + np.argmax(corners[worst, start:stop])
        for n in range(count):
            wider[n] = bound[n] + (corners[n, leader] - bound[n]) / np.float32(number)
        if wider.min() <= bound[worst]:
            break
        bound[:] = wider
    margins[start:stop] = np.inf
    for n in range(count):
        for g in range(start, stop):
            margins[g] = min(margins[g], bound[n] - corners[n, g])
