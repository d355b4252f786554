"""Find the winner of every pixel, tile by tile. A tile's data fits a core's cache.

Shapes: P phrases, h x w patches of a window, r x c pixels of a tile in the resized image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring.compiled.bounds import clip_span, find_candidates
from tipsseg.labelling.scoring.compiled.inputs import Axis, Index, Limits, Numbers, Span, Windows
from tipsseg.labelling.scoring.compiled.lines import (
    add_exp,
    add_share,
    compare,
    interpolate,
    invert,
    raise_row,
    raise_to,
    resize,
    resize_patches,
    whole_vectors,
)
from tipsseg.labelling.scoring.compiled.maths import ONE, ZERO, compiled
from tipsseg.labelling.scoring.resample import Values

#: The largest tile: its side in the image, and its (rows, columns) in the resized image. Long rows make efficient loops, and a
#: small area has few candidates.
TILE, SOURCE_TILE = 128, (20, 64)
_WIDTH = TILE + 16  # length of rows in memory

#: Index of the row in maps with a single row. For a plain 0, numba would compile separate functions.
_ONLY = np.int64(0)


@compiled
def label_rows(
    windows: Windows,
    rows: Axis,
    columns: Axis,
    tile: tuple[int, int],
    owners: Numbers,
    limits: Limits,
    winners: Numbers,
    confidence: Values,
    unsure: NDArray[np.bool_],
) -> None:
    """Find the winner of every pixel in some rows of an image, tile by tile, as `assign.match` describes.

    Args:
        windows: The windows.
        rows: Resizing weights from the resized image to these rows.
        columns: Resizing weights from the resized image to all columns.
        tile: (rows, columns) of a tile, at most TILE, and resized from at most SOURCE_TILE.
        owners: [P], the group of each phrase, ascending.
        limits: Limits for leaving phrases out.
        winners: [H, W], output: the groups of the best phrases.
        confidence: [H, W], output.
        unsure: [H, W], output: True if rounding may have decided the winner.
    """
    phrases = len(owners)
    height, width = winners.shape
    chosen = np.empty(phrases, np.uint32)
    # Scores of a tile's candidates, and the same scores resized to the columns of the image. The last map is the share of the
    # groups that cannot win, see _add_others.
    scores = np.zeros((phrases + 1, SOURCE_TILE[0], _WIDTH), np.float32)
    resized = np.zeros((phrases + 1, SOURCE_TILE[0], _WIDTH), np.float32)
    across, line = _axis_of_width(), _line(phrases)
    for top in range(0, height, tile[0]):
        bottom = min(top + tile[0], height)
        source_rows = np.int64(rows.low[top]), np.int64(rows.high[bottom - 1])
        depth = source_rows[1] - source_rows[0] + 1
        for left in range(0, width, tile[1]):
            right = min(left + tile[1], width)
            source_columns = np.int64(columns.low[left]), np.int64(columns.high[right - 1])
            source_lanes, lanes = whole_vectors(source_columns[1] - source_columns[0] + 1), whole_vectors(right - left)
            for x in range(right - left):
                across.low[x] = columns.low[left + x] - np.uint32(source_columns[0])
                across.high[x] = columns.high[left + x] - np.uint32(source_columns[0])
                across.weight[x] = columns.weight[left + x]
            near, far = find_candidates(windows, source_rows, source_columns, owners, limits, chosen)
            _score_tile(windows, source_rows, source_columns, chosen[:far], scores)
            _add_others(scores, owners, chosen, (near, far), limits.temperature, depth, source_lanes, line)
            for y in range(depth):
                for k in range(near):
                    resize(scores, k, y, across, resized, lanes)
                resize(scores, phrases, y, across, resized, lanes)
            for y in range(top, bottom):
                pair = rows.low[y] - source_rows[0], rows.high[y] - source_rows[0]
                _decide(resized, pair, rows.weight[y], owners, chosen, near, limits.temperature, lanes, line)
                for x in range(right - left):
                    winners[y, left + x] = line.winner[x]
                    confidence[y, left + x] = ONE / line.total[x]
                    unsure[y, left + x] = line.second[x] > line.best[x] * limits.tie


class _Line(NamedTuple):
    """Intermediate values of a row of a tile. Separate arrays, because numba vectorizes loops over them.

    Attributes:
        scores: [P + 1, 1, _WIDTH], scores of phrases, and the share of the groups that cannot win.
        best: Largest score.
        second: Largest score of the other groups.
        inverse: 1 / best.
        total: Sum of exp((log score - log best) / temperature) over groups.
        winner: Group of the best score.
    """

    scores: Values
    best: Values
    second: Values
    inverse: Values
    total: Values
    winner: Numbers


@compiled
def _line(phrases: int) -> _Line:
    return _Line(
        np.zeros((phrases + 1, 1, _WIDTH), np.float32),
        np.zeros(_WIDTH, np.float32),
        np.zeros(_WIDTH, np.float32),
        np.zeros(_WIDTH, np.float32),
        np.zeros(_WIDTH, np.float32),
        np.zeros(_WIDTH, np.uint32),
    )


@compiled
def _axis_of_width() -> Axis:
    return Axis(np.zeros(_WIDTH, np.uint32), np.zeros(_WIDTH, np.uint32), np.zeros(_WIDTH, np.float32))


@compiled
def _add_others(
    scores: Values,
    owners: Numbers,
    chosen: Numbers,
    counts: Span,
    temperature: np.float32,
    depth: Index,
    lanes: Index,
    line: _Line,
) -> None:
    """Write the share of the groups that cannot win, relative to the best score, to the last map of `scores`."""
    near, far = counts
    rest = len(scores) - 1
    for y in range(depth):
        line.total[:lanes] = ZERO
        if far > near:
            line.best[:lanes] = ZERO
            for phrase in range(near):
                raise_to(scores, phrase, y, line.best, lanes)
            invert(line.best, line.inverse, lanes)
            k: Index = near
            while k < far:
                end = _find_group_end(owners, chosen, k, far)
                for other in range(k + 1, end):
                    raise_row(scores, k, other, y, lanes)
                add_share(scores, k, y, line.inverse, temperature, line.total, lanes)
                k = end
        for x in range(lanes):
            scores[rest, y, x] = line.total[x]


@compiled
def _decide(
    resized: Values,
    rows: Span,
    weight: np.float32,
    owners: Numbers,
    chosen: Numbers,
    near: Index,
    temperature: np.float32,
    lanes: Index,
    line: _Line,
) -> None:
    """Find the winners of a row of the image by interpolation between two rows of `resized`."""
    line.best[:lanes] = ZERO
    line.second[:lanes] = ZERO
    rest = np.int64(len(resized) - 1)
    interpolate(resized, rest, rows, weight, line.scores, lanes)
    line.total[:lanes] = line.scores[rest, 0, :lanes]
    k: Index = 0
    while k < near:
        end = _find_group_end(owners, chosen, k, near)
        for phrase in range(k, end):
            interpolate(resized, phrase, rows, weight, line.scores, lanes)
        for other in range(k + 1, end):
            raise_row(line.scores, k, other, _ONLY, lanes)
        compare(line.scores, k, owners[chosen[k]], line.best, line.second, line.winner, lanes)
        k = end
    invert(line.best, line.inverse, lanes)
    k = 0
    while k < near:
        add_share(line.scores, k, _ONLY, line.inverse, temperature, line.total, lanes)
        k = _find_group_end(owners, chosen, k, near)


@compiled
def _score_tile(windows: Windows, rows: Span, columns: Span, chosen: Numbers, scores: Values) -> None:
    """Write the mean probabilities of the chosen phrases over windows to `scores` [K, r, c]."""
    side, axis = windows.factors.shape[1], windows.axis
    lanes = whole_vectors(columns[1] - columns[0] + 1)
    for k in range(len(chosen)):
        for y in range(rows[1] - rows[0] + 1):
            for x in range(lanes):
                scores[k, y, x] = ZERO
    buffer = np.empty((windows.by_patch.shape[1], _WIDTH), np.float32)
    for window in range(len(windows.corners)):
        top, bottom = clip_span(*rows, windows.corners[window, 0], side)
        left, right = clip_span(*columns, windows.corners[window, 1], side)
        if top > bottom or left > right:
            continue
        # Full rows of the tile, with factors of 0 outside the window.
        y_offset, x_offset = windows.corners[window, 0] - rows[0], windows.corners[window, 1] - columns[0]
        across = _axis_of_width()
        factors = np.zeros((SOURCE_TILE[0], _WIDTH), np.float32)
        for x in range(left, right + 1):
            across.low[x_offset + x], across.high[x_offset + x] = axis.low[x], axis.high[x]
            across.weight[x_offset + x] = axis.weight[x]
            for y in range(top, bottom + 1):
                factors[y_offset + y, x_offset + x] = windows.factors[window, y, x]
        _add_window(
            windows.by_phrase[window], chosen, axis, (top, bottom), y_offset, across, factors, buffer, scores, lanes
        )


@compiled
def _add_window(
    cosines: Values,
    chosen: Numbers,
    axis: Axis,
    rows: Span,
    y_offset: Index,
    across: Axis,
    factors: Values,
    buffer: Values,
    scores: Values,
    lanes: Index,
) -> None:
    """Add the probabilities of a window [P, h, w]. Its `rows` are in the tile, where its first row is at `y_offset`."""
    for k in range(len(chosen)):
        for row in range(axis.low[rows[0]], axis.high[rows[1]] + 1):
            resize_patches(cosines, chosen[k], row, across, buffer, lanes)
        for y in range(rows[0], rows[1] + 1):
            add_exp(buffer, axis.low[y], axis.high[y], axis.weight[y], factors, scores, k, y_offset + y, lanes)


@compiled
def _find_group_end(owners: Numbers, chosen: Numbers, start: Index, stop: Index) -> Index:
    """Return the end of the chosen phrases in the same group as the one at `start`."""
    end: Index = start + 1
    while end < stop and owners[chosen[end]] == owners[chosen[start]]:
        end += 1
    return end
