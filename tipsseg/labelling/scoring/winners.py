"""Find the winner and its confidence at every pixel of a tile.

Shapes: K phrases, G' groups, n x m pixels of a tile, r x c the part of a grid that they depend on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring.candidates import first_of_groups
from tipsseg.labelling.scoring.resample import Ids, Values, resize, resize_columns, resize_rows
from tipsseg.labelling.scoring.scores import PatchScores
from tipsseg.labelling.scoring.tiles import CHUNK, Tile

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
