"""Turn cosine maps into a label and a confidence for every pixel, tile by tile.

The published protocol merges sliding windows as follows: cosines are resized to the window (bilinear), made to
probabilities by a softmax over phrases without temperature, summed over windows, divided by the number of windows that saw the
pixel, resized to the image (bilinear), and the largest wins. Here the same numbers are made for a tile of the image at a time, and
at its resolution only for phrases that can win there (see `match`). Phrases that stand for one thing are merged at the very end, by
their maximum at each pixel, so that the winner is the owner of the best phrase.

All of it is numpy, on one core: images are matched in threads beside the model. See `compiled` for numba, `device_scores` for GPUs,
and README.md for the proof.

Shapes: P phrases, G groups of phrases that stand for one thing, H x W the labels, h x w a patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring.resample import Values, resize, resize_columns, resize_rows
from tipsseg.labelling.scoring.scores import Ids, Scores
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import ConfidenceArray, LabelArray

#: Scores that are at hand at once, phrases x rows x columns: 1 MB, so that they stay in the cache of a core.
_CHUNK = 1 << 18

#: Rows and columns of a tile for each of `Scores.tile_patches`, of the image and of the image as the model sees it, where not more
#: than _FEW phrases can win; and the smallest side that it is cut down to where there are more. Smaller tiles have fewer phrases,
#: and more of the work that every tile costs.
_TILE, _WORKING_TILE, _FEW, _MIN_SIDE = 32, 14, 8, 16

#: Two cosines this close may change places by rounding: ten times what sums of float32 of this size can be off.
ROUNDING = 1e-5

#: Temperatures by which the cosine of a phrase stays below the best: from the first on it counts for the confidence as the coarse
#: grid has it (0.14 of the best at most), from the second on not at all (less than 5e-5).
CLOSE, NOTHING = 2.0, 10.0

#: Leading phrases that a bound is made of, at most.
_LEADERS = 4

#: Larger images have their confidence in 16 bits: in 32 it would take as much memory as their decoding.
_LARGE = 64_000_000

#: Soft maps that are refined at once, maps x rows x columns: 256 MB.
_REFINED_ELEMENTS = 64_000_000

#: Maps [K, h, w] and an image [h, w, 3] -> the maps, refined.
Refine = Callable[[Values, NDArray[np.uint8]], Values]


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """What the phrases stand for.

    Attributes:
        groups: How many phrases each group has, in the order of the phrases.
        label_ids: [G], of the groups.
        min_confidence: [N] float32, by label id: a pixel of a lower confidence is ignored.
        ignore: The label id of ignored pixels.
    """

    groups: Sequence[int]
    label_ids: LabelArray
    min_confidence: NDArray[np.float32]
    ignore: int

    def labels(self, groups: Ids, index: NDArray[np.unsignedinteger], confidence: Values) -> LabelArray:
        """Return the label ids [H, W] of winners: `index` [H, W] among `groups`, and `confidence` [H, W]."""
        labels = self.label_ids[groups][index]
        if self.min_confidence.any():
            labels[confidence < self.min_confidence[labels]] = self.ignore
        return labels


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """What won at each pixel.

    Attributes:
        labels: [H, W], the label id of the winning group, or that of ignored pixels.
        confidence: [H, W] float32 in [0, 1]; float16 above _LARGE pixels.
    """

    labels: LabelArray
    confidence: ConfidenceArray


def match(scores: Scores, size: tuple[int, int], table: LabelTable) -> Assignment:
    """Find the label of every pixel of an image of `size` (H, W), and its confidence.

    Phrases that cannot win in a tile are told by the cosines alone, and left out of what is made at the size of the image;
    README.md shows that this changes no label. Memory beside the result: some MB, and a map of the sums for each window.
    """
    labels = np.empty(size, table.label_ids.dtype)
    confidence = allocate_confidence(size)
    owners = np.repeat(np.arange(len(table.groups)), table.groups)
    for tile in _tiles(scores, size, owners):
        here = tile.rows, tile.columns
        for band, groups, index, share in _find_winners(scores, tile, owners):
            labels[here][band] = table.labels(groups, index, share)
            confidence[here][band] = share
    return Assignment(cast(LabelArray, labels), confidence)


def match_refined(
    scores: Scores, image: NDArray[np.uint8], size: tuple[int, int], table: LabelTable, refine: Refine
) -> Assignment:
    """Match as `match` does, after the probabilities of the groups were drawn to the edges of the image.

    Only groups that win somewhere are refined, at the size of `image` [h', w', 3] uint8 RGB; the result is resized (bilinear) to
    `size` (H, W). The confidence of a pixel is the refined probability of its winner.
    """
    small = (image.shape[0], image.shape[1])
    occurring = occurring_groups(scores, small, table.groups)
    at_once = max(_REFINED_ELEMENTS // (small[0] * small[1]), 1)
    labels = np.empty(size, table.label_ids.dtype)
    confidence = allocate_confidence(size)
    confidence[:] = -1
    for start in range(0, len(occurring), at_once):
        chosen = occurring[start : start + at_once]
        refined = refine(_probabilities(scores, small, table.groups, chosen), image)
        for band, resized in _resize_in_bands(refined, size):
            best = resized.max(0)  # [rows, W]
            wins = best.astype(confidence.dtype) > confidence[band]  # as it is kept, so that of equals the first wins
            labels[band][wins] = table.labels(chosen, _argmax(resized, best)[wins], best[wins])
            confidence[band][wins] = best[wins]
    return Assignment(cast(LabelArray, labels), confidence)


def allocate_confidence(size: tuple[int, int]) -> ConfidenceArray:
    large = size[0] * size[1] > _LARGE
    return cast(ConfidenceArray, np.empty(size, np.float16 if large else np.float32))


def best_groups(
    scores: Scores, size: tuple[int, int], groups: Sequence[int], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """Return the best `count` groups at each cell of a grid of `size` (h, w), and softmax(log score / temperature) of each.

    Both are [count, h, w], the best first; of equals the first group comes first.
    """
    index = np.empty((count, *size), np.intp)
    share = np.empty((count, *size), np.float16)
    for band, shares in _shares(scores, size, groups):
        order = np.argsort(-shares, axis=0, kind="stable")[:count]  # [count, rows, w]
        index[:, band] = order
        share[:, band] = np.take_along_axis(shares, order, 0)
    return index, share


def occurring_groups(scores: Scores, size: tuple[int, int], groups: Sequence[int]) -> Ids:
    """Return the groups that win somewhere in an image of `size` (H, W), in their order."""
    numbers = np.arange(len(groups), dtype=np.uint16)
    won = match(scores, size, LabelTable(groups, numbers, np.zeros(len(groups), np.float32), 0)).labels
    return np.flatnonzero(np.bincount(won.reshape(-1), minlength=len(groups)))


def merge_names(values: Values, owners: Ids) -> tuple[Values, Ids]:
    """Return the maximum over the phrases of each owner, [K, ...] -> [G', ...], and the owners [G']; `owners` [K] is sorted."""
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(firsts) == len(owners):
        return values, owners
    merged = np.empty((len(firsts), *values.shape[1:]), np.float32)
    # numpy's reduceat takes three times as long.
    for target, start, stop in zip(merged, firsts, [*firsts[1:], len(owners)], strict=True):
        values[start:stop].max(0, out=target)
    return merged, owners[firsts]


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


def _tiles(scores: Scores, size: tuple[int, int], owners: Ids) -> Iterator[_Tile]:
    """Yield tiles of an image of `size`, in rows; those with many phrases that can win are cut up, as small ones have fewer."""
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

    pixels, working = scores.tile_patches * _TILE, scores.tile_patches * _WORKING_TILE
    steps = [
        max(pixels, working * length // whole) if length >= whole else max(pixels * length // whole, 1)
        for length, whole in zip(size, scores.working_size, strict=True)
    ]
    for top in range(0, size[0], steps[0]):
        for left in range(0, size[1], steps[1]):
            yield from parts(slice(top, min(top + steps[0], size[0])), slice(left, min(left + steps[1], size[1])))


def _halves(span: slice) -> tuple[slice, slice]:
    middle = (span.start + span.stop) // 2
    return slice(span.start, middle), slice(middle, span.stop)


def _candidates(
    scores: Scores, rows: InterpolationWeights, columns: InterpolationWeights, owners: Ids
) -> tuple[Ids, Ids]:
    """Return the phrases that matter in a part of the image: the best of groups that come near winning, and others that count."""
    corners = scores.corners(rows, columns)
    margins = _margins(corners)  # [P]
    contends = margins <= max(ROUNDING, CLOSE * scores.temperature)
    groups = np.zeros(owners[-1] + 1, bool)
    groups[owners[contends]] = True
    others = np.flatnonzero(~groups[owners] & (margins <= NOTHING * scores.temperature))
    for group in np.flatnonzero(groups & (np.bincount(owners) > 1)):
        own = slice(*np.searchsorted(owners, [group, group + 1]))
        # Of a group only what may be its own best somewhere; the argument of `match`, with leaders of the group.
        contends[own] = _margins([each[:, own] for each in corners]) <= ROUNDING
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


def _log_sum_of_others(scores: Scores, tile: _Tile, owners: Ids) -> Values | None:
    """Return the log of the sum of exp(logit / temperature) over the other groups, for the coarse grid of the tile, [r, c]."""
    phrases = tile.others
    if not len(phrases):
        return None
    rows, columns = (weights.span for weights in tile.coarse)
    rest = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    step = max(_CHUNK // (len(phrases) * rest.shape[1]), 1)
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        logits, _ = merge_names(scores.coarse_logits(slice(start, stop), columns, phrases), owners[phrases])
        logits /= scores.temperature
        most = logits.max(0)
        logits -= most
        rest[start - rows.start : stop - rows.start] = most + np.log(np.exp(logits, out=logits).sum(0))
    return rest


def _find_winners(
    scores: Scores, tile: _Tile, owners: Ids
) -> Iterator[tuple[slice, Ids, NDArray[np.unsignedinteger], Values]]:
    """Yield bands of rows of a tile, each with the groups that contend, the index of the winner among them, and its confidence."""
    (rows, columns), phrases = tile.source, tile.contenders
    rest, first = _log_sum_of_others(scores, tile, owners), tile.coarse[0].span.start
    if rest is not None:
        rest = resize_columns(rest, tile.coarse[1])  # [r, columns]
    step = max(_CHUNK // (len(phrases) * len(columns.low)), 1)
    for start in range(0, len(rows.low), step):
        part = rows.part(start, start + step)
        values = scores.values(part.span, columns.span, phrases)
        merged, groups = merge_names(resize(values, part, columns), owners[phrases])  # [G', rows, columns]
        best = merged.max(0)
        index = _argmax(merged, best)
        logits, logit = scores.logits(merged), scores.logits(best)
        logits -= logit
        logits /= scores.temperature
        total = np.exp(logits, out=logits).sum(0)
        if rest is not None:
            logit /= scores.temperature
            coarse = tile.coarse[0].part(start, start + step)
            share = resize_rows(rest[coarse.span.start - first : coarse.span.stop - first], coarse)
            share -= logit
            total += np.exp(share, out=share)
        yield slice(start, start + step), groups, index, np.reciprocal(total, out=total)


def _argmax(values: Values, best: Values) -> NDArray[np.unsignedinteger]:
    """Return the first index at which [K, ...] holds its maximum `best`."""
    # numpy's argmax along the first axis takes ten times as long.
    index = np.zeros(best.shape, np.uint8 if len(values) <= 256 else np.uint16)
    behind = np.ones(best.shape, bool)
    for each in values[:-1]:
        behind &= each != best
        index += behind
    return index


def _shares(scores: Scores, size: tuple[int, int], groups: Sequence[int]) -> Iterator[tuple[slice, Values]]:
    """Yield bands of rows of an image of `size`, each with softmax(log score / temperature) of all groups, [G, rows, W]."""
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
            pieces.append(merge_names(resize(values, rows, part), owners)[0])
        shares = scores.logits(np.concatenate(pieces, 2))
        shares -= shares.max(0)
        shares /= scores.temperature
        np.exp(shares, out=shares)
        shares /= shares.sum(0)
        yield slice(start, start + step), shares


def _probabilities(scores: Scores, size: tuple[int, int], groups: Sequence[int], chosen: Ids) -> Values:
    """Return softmax(log score / temperature) over all groups, for the chosen ones: [K, h', w']."""
    soft = np.empty((len(chosen), *size), np.float32)
    for band, shares in _shares(scores, size, groups):
        soft[:, band] = shares[chosen]
    return soft


def _resize_in_bands(maps: Values, size: tuple[int, int]) -> Iterator[tuple[slice, Values]]:
    """Yield bands of rows of maps [K, h, w] resized to `size`, [K, rows, W] each."""
    rows, columns = (interpolation_weights(*lengths) for lengths in zip(maps.shape[1:], size, strict=True))
    step = max(_CHUNK // (len(maps) * size[1]), 1)
    for start in range(0, size[0], step):
        part = rows.part(start, start + step)
        yield slice(start, start + step), resize(maps[:, part.span, columns.span], part, columns)
