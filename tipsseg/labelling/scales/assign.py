"""Scores of several scales -> label and confidence of every pixel, tile by tile; what `labelling.assign` is for one scale.

Scores are made for a tile of the image at a time, and at its resolution only for phrases that can win there. Phrases that stand for
one thing are merged at the very end, by their maximum at each pixel, so that the winner is the owner of the best phrase.

All of it is numpy, on one core: images are matched in threads beside the model.

Shapes: P phrases, G groups of phrases that stand for one thing, H x W the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling import assign
from tipsseg.labelling.assign import Assignment, LabelTable, Refine, empty_confidence, merge_names
from tipsseg.labelling.resample import Values, resize, resize_columns, resize_rows
from tipsseg.labelling.scales.fused import FusedScores
from tipsseg.labelling.scales.maps import Ids
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import LabelArray

#: Scores that are at hand at once, phrases x rows x columns: 1 MB, so that they stay in the cache of a core.
_CHUNK = 1 << 18

#: Rows and columns of a tile, of the image and of the image as the model sees it (two patches), where not more than _FEW phrases
#: can win; and the smallest side that it is cut down to where there are more. Smaller tiles have fewer phrases, and more of the
#: work that every tile costs.
_TILE, _WORKING_TILE, _FEW, _MIN_SIDE = 64, 28, 8, 16

#: Two logits this close may change places by rounding: ten times what sums of float32 of this size can be off.
_ROUNDING = 1e-5

#: Temperatures by which the logit of a phrase stays below the best: from the first on it counts for the confidence as the coarse
#: grid has it (0.14 of the best at most), from the second on not at all (less than 5e-5).
_CLOSE, _NOTHING = 2.0, 10.0

#: Leading phrases that a bound is made of, at most.
_LEADERS = 4


def match(scores: FusedScores, size: tuple[int, int], table: LabelTable) -> Assignment:
    """The label of every pixel of an image of `size` (H, W), and its confidence.

    Phrases that cannot win in a tile are told by the cosines alone, and left out of what is made at the size of the image:

    1. Within a tile the cosine c_g(x) of phrase g, at a pixel x of a window of a scale, is a mean of its values at a few corners,
       with weights that are the same for all phrases.
    2. Let a_k be positive, of sum 1, and let m be the least of (sum of a_k c_k) - c_g over all corners of a scale. So at every x
       c_g(x) <= (sum of a_k c_k(x)) - m. Take exp of it. The probability of a phrase at a pixel of the grid is a sum over windows,
       and over the pixels that it is resized from, of exp(c(x)) with weights b(x) that are the same for all phrases. By Hölder's
       inequality sum of b(x) * product of exp(c_k(x))^a_k is no more than the product of (sum of b(x) exp(c_k(x)))^a_k. So
       log p_g <= (sum of a_k log p_k) - m at every pixel of the grid.
    3. Let M be the mean of m over the scales. The fused score of g is below a mean of those of the leading phrases k by M at least,
       and so it is at every pixel of the image, whose scores are means of those of the grid. Where M is positive the best of the
       leaders is ahead of g, which does not win there.

    The test has a margin for rounding, so leaving g out changes no label. In "whole" mode logits are cosines: 1 and 3 suffice.

    The confidence is softmax(fused score / temperature) of the winner over all groups. Groups that may win in the tile, or come
    close, are in its sum as they are at the pixel. The sum over the others is made on the coarse grid and its logarithm resized.

    Memory beside the result: some MB, and for each window a map of the sums at its size.
    """
    labels = np.empty(size, table.label_ids.dtype)
    confidence = empty_confidence(size)
    owners = np.repeat(np.arange(len(table.groups)), table.groups)
    for tile in _tiles(scores, size, owners):
        here = tile.rows, tile.columns
        for band, groups, index, share in _won(scores, tile, owners):
            labels[here][band] = table.labels(groups, index, share)
            confidence[here][band] = share
    return Assignment(cast(LabelArray, labels), confidence)


def match_refined(
    scores: FusedScores, image: NDArray[np.uint8], size: tuple[int, int], table: LabelTable, refine: Refine
) -> Assignment:
    """As `match`, after the probabilities of the groups were drawn to the edges of the image, see `labelling.assign`."""
    small = (image.shape[0], image.shape[1])
    numbers = np.arange(len(table.groups), dtype=np.uint16)
    won = match(scores, small, LabelTable(table.groups, numbers, np.zeros(len(numbers), np.float32), 0)).labels
    occurring = np.flatnonzero(np.bincount(won.reshape(-1), minlength=len(numbers)))

    def probabilities(chosen: Ids) -> Values:
        soft = np.empty((len(chosen), *small), np.float32)
        for band, shares in _shares(scores, small, table.groups):
            soft[:, band] = shares[chosen]
        return soft

    return assign.refined(occurring, probabilities, image, size, table, refine)


def best_groups(
    scores: FusedScores, size: tuple[int, int], groups: Sequence[int], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """The best `count` groups at each cell of a grid of `size` (h, w), see `labelling.assign`."""
    return assign.best_of(_shares(scores, size, groups), size, count)


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """A part of the image.

    Attributes:
        rows: Its rows of the image.
        columns: Its columns of the image.
        source: Interpolation weights from the grid of the scores, down and across.
        coarse: Interpolation weights from the coarse grid, down and across.
        contenders: Phrases of groups that may win here, or come near that.
        others: Phrases of other groups that count for the confidence.
    """

    rows: slice
    columns: slice
    source: tuple[InterpolationWeights, InterpolationWeights]
    coarse: tuple[InterpolationWeights, InterpolationWeights]
    contenders: Ids
    others: Ids


def _tiles(scores: FusedScores, size: tuple[int, int], owners: Ids) -> Iterator[_Tile]:
    """Tiles of an image of `size`, in rows; those where many phrases can win are cut up, as smaller ones tell more apart."""
    source, coarse = (
        [interpolation_weights(*lengths) for lengths in zip(grid, size, strict=True)]
        for grid in (scores.size, scores.coarse_size)
    )

    def parts(*spans: slice) -> Iterator[_Tile]:
        rows, columns = spans
        down, across = (weights.part(span.start, span.stop) for weights, span in zip(source, spans, strict=True))
        coarsely = tuple(weights.part(span.start, span.stop) for weights, span in zip(coarse, spans, strict=True))
        candidates = _candidates(scores, down, across, owners)
        tile = _Tile(rows, columns, (down, across), (coarsely[0], coarsely[1]), *candidates)
        height, width = (span.stop - span.start for span in spans)
        if (
            len(tile.contenders) <= _FEW
            or len(tile.contenders) * height * width <= _CHUNK
            or max(height, width) < 2 * _MIN_SIDE
        ):
            yield tile
        elif height >= width:
            for part in _halves(rows):
                yield from parts(part, columns)
        else:
            for part in _halves(columns):
                yield from parts(rows, part)

    steps = [
        max(_TILE, _WORKING_TILE * length // whole) if length >= whole else max(_TILE * length // whole, 1)
        for length, whole in zip(size, scores.working_size, strict=True)
    ]
    for top in range(0, size[0], steps[0]):
        for left in range(0, size[1], steps[1]):
            yield from parts(slice(top, min(top + steps[0], size[0])), slice(left, min(left + steps[1], size[1])))


def _halves(span: slice) -> tuple[slice, slice]:
    middle = (span.start + span.stop) // 2
    return slice(span.start, middle), slice(middle, span.stop)


def _candidates(
    scores: FusedScores, rows: InterpolationWeights, columns: InterpolationWeights, owners: Ids
) -> tuple[Ids, Ids]:
    """Phrases that matter in a part of the image: the best of groups that come near winning, and others that count at all."""
    corners = scores.corners(rows, columns)
    margins = _margins(corners)  # [P]
    contends = margins <= max(_ROUNDING, _CLOSE * scores.temperature)
    groups = np.zeros(owners[-1] + 1, bool)
    groups[owners[contends]] = True
    others = np.flatnonzero(~groups[owners] & (margins <= _NOTHING * scores.temperature))
    for group in np.flatnonzero(groups & (np.bincount(owners) > 1)):
        own = slice(*np.searchsorted(owners, [group, group + 1]))
        # Of a group only what may be its own best somewhere; the argument of `match`, with leaders of the group.
        contends[own] = _margins([each[:, own] for each in corners]) <= _ROUNDING
    return np.flatnonzero(contends), others


def _margins(corners: Sequence[Values]) -> Values:
    """[N, P] of each scale -> [P]: by how much each phrase stays below a mean of a few leading ones, at least.

    The more corners differ in what is best there, the more leaders it takes so that their mean is high at all of them.
    """
    first = sum((each.mean(0) for each in corners), np.float32(0)).argmax()
    bounds = [each[:, first] for each in corners]  # [N] each
    for number in range(2, _LEADERS + 1):
        lowest = [bound.argmin() for bound in bounds]
        worst = int(np.argmin([bound[index] for bound, index in zip(bounds, lowest, strict=True)]))
        best_at_worst = corners[worst][lowest[worst]].argmax()
        wider = [
            bound + (each[:, best_at_worst] - bound) / np.float32(number)
            for bound, each in zip(bounds, corners, strict=True)
        ]
        if min(bound.min() for bound in wider) <= bounds[worst][lowest[worst]]:
            break
        bounds = wider
    least = [(bound[:, None] - each).min(0) for bound, each in zip(bounds, corners, strict=True)]
    margins: Values = np.mean(least, axis=0, dtype=np.float32)
    return margins


def _log_rest(scores: FusedScores, tile: _Tile, owners: Ids) -> Values | None:
    """log of the sum of exp(logit / temperature) over the other groups: what of the coarse grid the tile needs, [r, c]."""
    phrases = tile.others
    if not len(phrases):
        return None
    rows, columns = (weights.span for weights in tile.coarse)
    rest = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    step = max(_CHUNK // (len(phrases) * rest.shape[1]), 1)
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        logits, _ = merge_names(scores.coarse_values(slice(start, stop), columns, phrases), owners[phrases])
        logits /= scores.temperature
        most = logits.max(0)
        logits -= most
        rest[start - rows.start : stop - rows.start] = most + np.log(np.exp(logits, out=logits).sum(0))
    return rest


def _won(
    scores: FusedScores, tile: _Tile, owners: Ids
) -> Iterator[tuple[slice, Ids, NDArray[np.unsignedinteger], Values]]:
    """Bands of rows of a tile, each with the groups that contend, the index of the winner among them, and its confidence."""
    (rows, columns), phrases = tile.source, tile.contenders
    rest = _log_rest(scores, tile, owners)
    if rest is not None:
        rest = resize_columns(rest, tile.coarse[1].within)  # [r, columns]
    step = max(_CHUNK // (len(phrases) * len(columns.low)), 1)
    for start in range(0, len(rows.low), step):
        part = rows.part(start, start + step)
        values = scores.values(part.span, columns.span, phrases)
        merged, groups = merge_names(
            resize(values, part.within, columns.within), owners[phrases]
        )  # [G', rows, columns]
        best = merged.max(0)
        index = assign.first_index(merged, best)
        merged -= best
        merged /= scores.temperature
        total = np.exp(merged, out=merged).sum(0)
        if rest is not None:
            best /= scores.temperature
            share = resize_rows(rest, tile.coarse[0].within.part(start, start + step))
            share -= best
            total += np.exp(share, out=share)
        yield slice(start, start + step), groups, index, np.reciprocal(total, out=total)


def _shares(scores: FusedScores, size: tuple[int, int], groups: Sequence[int]) -> Iterator[tuple[slice, Values]]:
    """Bands of rows of an image of `size`, each with softmax(fused score / temperature) of all groups, [G, rows, W]."""
    owners = np.repeat(np.arange(len(groups)), groups)
    everything = np.arange(len(owners))
    weights, columns = (interpolation_weights(*lengths) for lengths in zip(scores.size, size, strict=True))
    # A row of the image may come from many of the grid; it is made in pieces so that neither is too much at once.
    finer = [max(-(-source // length), 1) for source, length in zip(scores.size, size, strict=True)]
    width = max(min(_CHUNK // (len(owners) * 2 * finer[0] * finer[1]), size[1]), 1)
    step = max(_CHUNK // (len(owners) * size[1] * finer[0] * finer[1]), 1)
    for start in range(0, size[0], step):
        rows = weights.part(start, start + step)
        pieces = []
        for left in range(0, size[1], width):
            part = columns.part(left, left + width)
            values = scores.values(rows.span, part.span, everything)
            pieces.append(merge_names(resize(values, rows.within, part.within), owners)[0])
        shares = np.concatenate(pieces, 2)
        shares -= shares.max(0)
        shares /= scores.temperature
        np.exp(shares, out=shares)
        shares /= shares.sum(0)
        yield slice(start, start + step), shares
