"""Divide an image into tiles, find the phrases that may win in each, and find the winner and its confidence at every pixel.

README.md proves that the other phrases cannot win.

Shapes: T tiles, N points of each, P phrases, K phrases that may win, G' groups, H x W an image, n x m pixels of a tile, r x c the
part of a grid that they depend on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scores import Axes, PatchScores, grid_weights
from tipsseg.labelling.sums import Ids, Values, resize, resize_columns, resize_rows

#: Rounding may swap two cosines closer than this: ten times the possible error of float32 sums of this size.
ROUNDING = 1e-5

#: Distances of a cosine from the best, in temperatures. From CLOSE on, its share of the confidence is computed on the coarse
#: grid (it is at most 0.14 of the best). From NEGLIGIBLE on, it is left out (less than 5e-5).
CLOSE, NEGLIGIBLE = 2.0, 10.0

#: Maximum number of leading phrases in a bound.
_LEADERS = 4


def find_candidates(corners: Sequence[Values], temperature: float, owners: Ids) -> list[tuple[Ids, Ids]]:
    """Find the phrases of groups that may win or come close in each tile, and the other phrases that affect its confidence.

    Args:
        corners: [T, N, P] per scale (see `WindowScores.corners`).
        temperature: Temperature of the softmax for confidences.
        owners: [P], the group of each phrase, in ascending order.
    """
    margins = _margins(corners)  # [T, P]
    contends = margins <= max(ROUNDING, CLOSE * temperature)
    firsts, sizes = first_of_groups(owners), np.bincount(owners)
    groups = np.logical_or.reduceat(contends, firsts, 1)  # [T, G]
    contends = groups[:, owners]
    others = ~contends & (margins <= NEGLIGIBLE * temperature)
    for group in np.flatnonzero(groups.any(0) & (sizes > 1)):
        tiles, own = np.flatnonzero(groups[:, group]), slice(firsts[group], firsts[group] + sizes[group])
        # Keep only phrases that may be the best of their group somewhere, by the same bound with leaders from the group.
        contends[tiles, own] = _margins([values[tiles, :, own] for values in corners]) <= ROUNDING
    return [(np.flatnonzero(near), np.flatnonzero(far)) for near, far in zip(contends, others, strict=True)]


def first_of_groups(owners: Ids) -> Ids:
    """Return the index of the first phrase of each group, from the groups of the phrases in ascending order."""
    return np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))


def _margins(corners: Sequence[Values]) -> Values:
    """Return a lower bound on the distance of each phrase from a mean of leading phrases, [T, N, P] per scale -> [T, P]."""
    least = [(bound[:, :, None] - values).min(1) for bound, values in zip(_lead(corners), corners, strict=True)]
    margins: Values = np.mean(least, axis=0, dtype=np.float32)
    return margins


def _lead(corners: Sequence[Values]) -> list[Values]:
    """Return a mean of leading phrases at each point, [T, N, P] per scale -> [T, N] per scale.

    If different phrases lead at different points, the mean takes more leaders, so that it is high at all points. It does not
    depend on points that are repeated.
    """
    values = np.concatenate(corners, 1)  # [T, N', P]
    tiles = np.arange(len(values))
    bounds = values[tiles, :, values.min(1).argmax(1)]  # [T, N']
    better = np.ones(len(values), bool)
    for number in range(2, _LEADERS + 1):
        worst = bounds.argmin(1)
        leaders = values[tiles, worst].argmax(1)
        wider = bounds + (values[tiles, :, leaders] - bounds) / np.float32(number)
        better &= wider.min(1) > bounds[tiles, worst]  # a tile must not depend on the others
        if not better.any():
            break
        bounds = np.where(better[:, None], wider, bounds)
    return np.split(bounds, np.cumsum([scale.shape[1] for scale in corners])[:-1], 1)


#: Scores per step, phrases x rows x columns: 1 MB, which fits a core's cache.
CHUNK = 1 << 18

#: Side of a tile per `WindowScores.tile_patches`, in pixels of the image and of the resized image, if at most _FEW phrases can win.
#: Tiles
#: with more candidates are divided down to _MIN_SIDE. Smaller tiles have fewer candidates, but every tile has a fixed cost.
_TILE, _WORKING_TILE, _FEW, _MIN_SIDE = 32, 14, 8, 16

#: Tiles times phrases whose candidates are found together. A value is 4 bytes at up to 100 points of a tile.
_AT_ONCE = 1 << 12

#: Rows and columns of a part of an image.
Span = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of an image.

    Attributes:
        span: Its rows and columns, one of `spans`.
        inner: The rows and columns to label, inside `span`.
    """

    span: Span
    inner: Span


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Part of an image.

    Attributes:
        rows: Rows of the image.
        columns: Columns of the image.
        source: Resizing weights from the score grid, for rows and columns.
        coarse: Resizing weights from the coarse grid, for rows and columns.
        contenders: Phrases of groups that may win or come close.
        others: Phrases of other groups that affect the confidence.
    """

    rows: slice
    columns: slice
    source: Axes
    coarse: Axes
    contenders: Ids
    others: Ids


def spans(scores: PatchScores, size: tuple[int, int], *, same: bool = False) -> list[Span]:
    """Return the rows and columns of tiles that cover an image of `size` (H, W), row by row.

    `same` means that the resized image has the pixels of the image, of which `size` may be a part.
    """
    pixels, working = scores.tile_patches * _TILE, scores.tile_patches * _WORKING_TILE
    steps = (
        [pixels, pixels]
        if same
        else [
            max(pixels, working * length // whole) if length >= whole else max(pixels * length // whole, 1)
            for length, whole in zip(size, scores.working_size, strict=True)
        ]
    )
    return [
        (slice(top, min(top + steps[0], size[0])), slice(left, min(left + steps[1], size[1])))
        for top in range(0, size[0], steps[0])
        for left in range(0, size[1], steps[1])
    ]


def tiles(scores: PatchScores, size: tuple[int, int], owners: Ids, parts: Sequence[Part]) -> Iterator[Tile]:
    """Yield the tiles of some parts of an image of `size` (H, W). Tiles with many contenders are divided."""
    source, coarse = grid_weights(scores.size, size), grid_weights(scores.coarse_size, size)
    step = max(_AT_ONCE // scores.phrases, 1)
    for start in range(0, len(parts), step):
        todo = parts[start : start + step]
        while todo:
            ends = [(axis.start, axis.stop - 1) for part in todo for axis in part.span]
            corners = scores.corners(source, np.array(ends).reshape(-1, 4))
            candidates = find_candidates(corners, scores.temperature, owners)
            divided: list[Part] = []
            for part, (contenders, others) in zip(todo, candidates, strict=True):
                height, width = (axis.stop - axis.start for axis in part.span)
                few = len(contenders) <= _FEW or len(contenders) * height * width <= CHUNK
                if few or max(height, width) < 2 * _MIN_SIDE:
                    inner = part.inner
                    yield Tile(*inner, _parts(source, inner), _parts(coarse, inner), contenders, others)
                else:
                    divided += _halves(part)
            todo = divided


def _parts(axes: Axes, span: Span) -> Axes:
    rows, columns = (axis.part(part.start, part.stop) for axis, part in zip(axes, span, strict=True))
    return rows, columns


def _halves(part: Part) -> list[Part]:
    """Divide a part along its longer side; halves without pixels to label are left out."""
    rows, columns = part.span
    if rows.stop - rows.start >= columns.stop - columns.start:
        middle = (rows.start + rows.stop) // 2
        halves = [(slice(rows.start, middle), columns), (slice(middle, rows.stop), columns)]
    else:
        middle = (columns.start + columns.stop) // 2
        halves = [(rows, slice(columns.start, middle)), (rows, slice(middle, columns.stop))]
    parts = [Part(half, (_overlap(half[0], part.inner[0]), _overlap(half[1], part.inner[1]))) for half in halves]
    return [each for each in parts if all(axis.start < axis.stop for axis in each.inner)]


def _overlap(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


Indices = NDArray[np.unsignedinteger]


def find_winners(scores: PatchScores, tile: Tile, owners: Ids) -> Iterator[tuple[slice, Ids, Indices, Values]]:
    """Yield bands of rows of a tile: the rows, the contending groups, the index of the winner among them, its confidence."""
    (rows, columns), phrases = tile.source, tile.contenders
    own = owners[phrases]  # [K], in ascending order
    if own[0] == own[-1] and not len(tile.others):
        shape = len(rows.low), len(columns.low)
        yield slice(0, shape[0]), own[:1], np.zeros(shape, np.uint8), np.ones(shape, np.float32)
        return
    rest = _log_sum_of_others(scores, tile, owners)
    first = tile.coarse[0].span.start
    if rest is not None:
        rest = resize_columns(rest, tile.coarse[1])  # [r, m]
    step = max(CHUNK // (len(phrases) * len(columns.low)), 1)
    for start in range(0, len(rows.low), step):
        part, coarse = (axis.part(start, start + step) for axis in (rows, tile.coarse[0]))
        values = resize(scores.values(part.span, columns.span, phrases), part, columns)  # [K, n, m]
        merged, groups = merge_names(values, own)  # [G', n, m]
        best = merged.max(0)
        index = argmax(merged, best)
        logits, logit = scores.logits(merged), scores.logits(best)
        logits -= logit
        logits *= 1 / scores.temperature
        total = np.exp(logits, out=logits).sum(0)
        if rest is not None:
            logit *= 1 / scores.temperature
            share = resize_rows(rest[coarse.span.start - first : coarse.span.stop - first], coarse)
            share -= logit
            total += np.exp(share, out=share)
        yield slice(start, start + step), groups, index, np.reciprocal(total, out=total)


def _log_sum_of_others(scores: PatchScores, tile: Tile, owners: Ids) -> Values | None:
    """Return the log of the sum of exp(logit / temperature) over the other groups, on the coarse grid of the tile, [r, c]."""
    phrases = tile.others
    if not len(phrases):
        return None
    rows, columns = (weights.span for weights in tile.coarse)
    rest = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    step = max(CHUNK // (len(phrases) * rest.shape[1]), 1)
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        logits, _ = merge_names(scores.coarse_logits(slice(start, stop), columns, phrases), owners[phrases])
        logits /= scores.temperature
        most = logits.max(0)
        logits -= most
        rest[start - rows.start : stop - rows.start] = most + np.log(np.exp(logits, out=logits).sum(0))
    return rest


def merge_names(values: Values, owners: Ids) -> tuple[Values, Ids]:
    """Return the maximum over the phrases of each group, [K, ...] -> [G', ...], and the groups [G']. `owners` [K] are sorted."""
    firsts = first_of_groups(owners)
    if len(firsts) == len(owners):
        return values, owners
    merged = np.empty((len(firsts), *values.shape[1:]), np.float32)
    # np.maximum.reduceat takes three times as long.
    for target, start, stop in zip(merged, firsts, [*firsts[1:], len(owners)], strict=True):
        values[start:stop].max(0, out=target)
    return merged, owners[firsts]


def argmax(values: Values, best: Values) -> Indices:
    """Return the first index of the maximum `best` along the first axis of [K, ...]."""
    # np.argmax along the first axis takes ten times as long.
    index = np.zeros(best.shape, np.uint8 if len(values) <= 256 else np.uint16)
    not_reached = np.ones(best.shape, bool)
    for item in values[:-1]:
        not_reached &= item != best
        index += not_reached
    return index


#: Numbers of points along an axis of a cell.
_FEWEST, _MOST = 3, 7
