"""Find the winner of every pixel, tile by tile. The numbers of a tile stay in the cache of a core.

Shapes: P phrases, h x w patches of a window; a tile has r x c pixels of the image as the model sees it.
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
    between,
    compare,
    invert,
    raise_row,
    raise_to,
    resize,
    spread,
    whole_vectors,
)
from tipsseg.labelling.scoring.compiled.maths import ONE, ZERO, compiled
from tipsseg.labelling.scoring.resample import Values

#: The most rows and columns of a tile: of the image, along either axis, and of the image as the model sees it. Long rows make long
#: loops, and a small area has few phrases that find_candidates.
TILE, SOURCE_TILE = 128, (20, 64)
_WIDTH = TILE + 16  # of the rows in memory

#: The row of maps that have one. Of a plain 0 numba would compile functions of its own.
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
    """Find the winner of every pixel of some rows of an image, tile by tile, as `assign.match` describes.

    Args:
        windows: The windows.
        rows: From the image as the model sees it to these rows.
        columns: The same for all columns.
        tile: Rows and columns of a tile: at most TILE, and resized from at most SOURCE_TILE.
        owners: [P], what each phrase stands for, ascending.
        limits: What matters.
        winners: [H, W], filled with the owners of the best phrases.
        confidence: [H, W], filled.
        unsure: [H, W], filled: where rounding may have chosen the winner.
    """
    phrases = len(owners)
    height, width = winners.shape
    chosen = np.empty(phrases, np.uint32)
    # The scores of the phrases that find_candidates in a tile; and the same at the columns of the image. Behind them, what the
    # other phrases are worth, see _add_others.
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
    """What is made of a row of a tile. Arrays of their own, as numba then makes vectors of their loops.

    Attributes:
        scores: [P + 1, 1, _WIDTH], of phrases; and what the others are worth.
        best: The largest score.
        second: The largest of the other groups.
        inverse: 1 / best.
        total: The sum of exp((log score - log best) / temperature) over groups.
        winner: The owner of the best.
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
    """Put what the groups behind the first are worth for the confidence, in shares of the best, behind all scores."""
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
    """Find the winners of a row of the image, between two rows of `resized`."""
    line.best[:lanes] = ZERO
    line.second[:lanes] = ZERO
    rest = np.int64(len(resized) - 1)
    between(resized, rest, rows, weight, line.scores, lanes)
    line.total[:lanes] = line.scores[rest, 0, :lanes]
    k: Index = 0
    while k < near:
        end = _find_group_end(owners, chosen, k, near)
        for each in range(k, end):
            between(resized, each, rows, weight, line.scores, lanes)
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
    """Average the probabilities of some phrases in a tile over windows: `scores` [K, r, c]."""
    side, axis = windows.factors.shape[1], windows.axis
    lanes = whole_vectors(columns[1] - columns[0] + 1)
    for k in range(len(chosen)):
        for y in range(rows[1] - rows[0] + 1):
            for x in range(lanes):
                scores[k, y, x] = ZERO
    spread_rows = np.empty((windows.by_patch.shape[1], _WIDTH), np.float32)
    for window in range(len(windows.corners)):
        top, bottom = clip_span(*rows, windows.corners[window, 0], side)
        left, right = clip_span(*columns, windows.corners[window, 1], side)
        if top > bottom or left > right:
            continue
        # All of the window at the columns of the tile, with factors of 0 where there is nothing of it.
        below, behind = windows.corners[window, 0] - rows[0], windows.corners[window, 1] - columns[0]
        across = _axis_of_width()
        factors = np.zeros((SOURCE_TILE[0], _WIDTH), np.float32)
        for x in range(left, right + 1):
            across.low[behind + x], across.high[behind + x] = axis.low[x], axis.high[x]
            across.weight[behind + x] = axis.weight[x]
            for y in range(top, bottom + 1):
                factors[below + y, behind + x] = windows.factors[window, y, x]
        _add_window(
            windows.by_phrase[window], chosen, axis, (top, bottom), below, across, factors, spread_rows, scores, lanes
        )


@compiled
def _add_window(
    cosines: Values,
    chosen: Numbers,
    axis: Axis,
    rows: Span,
    below: Index,
    across: Axis,
    factors: Values,
    spread_rows: Values,
    scores: Values,
    lanes: Index,
) -> None:
    """Add the probabilities of a window [P, h, w], of which `rows` are in the tile, `below` its first one."""
    for k in range(len(chosen)):
        for row in range(axis.low[rows[0]], axis.high[rows[1]] + 1):
            spread(cosines, chosen[k], row, across, spread_rows, lanes)
        for y in range(rows[0], rows[1] + 1):
            add_exp(spread_rows, axis.low[y], axis.high[y], axis.weight[y], factors, scores, k, below + y, lanes)


@compiled
def _find_group_end(owners: Numbers, chosen: Numbers, start: Index, stop: Index) -> Index:
    """Return where the chosen phrases end that stand for the same as that at `start`."""
    end: Index = start + 1
    while end < stop and owners[chosen[end]] == owners[chosen[start]]:
        end += 1
    return end
