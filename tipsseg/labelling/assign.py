"""Cosine maps -> label and confidence of every pixel, tile by tile.

The published protocol merges sliding windows as follows: cosines are resized to the window (bilinear), made to
probabilities by a softmax over phrases without temperature, summed over windows, divided by the number of windows that saw the
pixel, resized to the image (bilinear), and the largest wins. Here the same numbers are made for a tile of the image at a time, and
at its resolution only for phrases that can win there (see `match`). Phrases that stand for one thing are merged at the very end, by
their maximum at each pixel, so that the winner is the owner of the best phrase.

All of it is numpy, on one core: images are matched in threads beside the model. On a GPU see `device_scores`.

Shapes: P phrases, G groups of phrases that stand for one thing, H x W the labels, h x w a patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.candidates import Cells, bands, gathered
from tipsseg.labelling.cells import make_axis
from tipsseg.labelling.estimates import Estimator
from tipsseg.labelling.resample import Values, resize
from tipsseg.labelling.scores import Ids, Scores, blend, resize_maps
from tipsseg.labelling.windows import interpolation_weights
from tipsseg.types import ConfidenceArray, LabelArray

#: Scores that are at hand at once, phrases x rows x columns: 1 MB, so that they stay in the cache of a core.
_CHUNK = 1 << 18

#: Pixels that wait for exact scores, and control points x phrases that wait to be estimated: many at a time take less.
_OPEN, _WAITING = 1 << 16, 1 << 22

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
        """Label ids, [H, W], of winners: `index` [H, W] among `groups`, and `confidence` [H, W]."""
        return self.sure(self.label_ids[groups][index], confidence)

    def sure(self, labels: LabelArray, confidence: Values) -> LabelArray:
        """Labels, in their memory: those whose confidence of 32 bits is below what they need are ignored."""
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
    """The label of every pixel of an image of `size` (H, W), and its confidence.

    Logits are estimated, for phrases that matter in a block of pixels (see `estimates`). Where the best two estimates are nearer to
    each other than estimates may be off, and their labels differ, the pixel is `open`: its label is made of exact scores. So no
    label differs from that of exact scores.

    The confidence is softmax(log score / temperature) of the winner over all groups (see `Scores.logits`). It is estimated too,
    but where estimates are coarse for the temperature. Even where the cosines of neighbouring patches differ at random by up to
    0.2, it is off by less than 0.0002 on average, and by more than 0.01 at less than 0.5 % of the pixels (the tests say so).

    Memory beside the result: some tens of MB.
    """
    owners = np.repeat(np.arange(len(table.groups)), table.groups)
    labels = np.empty(size, table.label_ids.dtype)
    confidence = empty_confidence(size)
    confidence[:] = 1
    axes = make_axis(scores.runs[0], size[0]), make_axis(scores.runs[1], size[1])
    estimator = Estimator(axes, scores.temperature, owners, table.label_ids)
    flat_labels, flat_confidence = labels.reshape(-1), confidence.reshape(-1)
    opened: list[Ids] = []

    def settle(cells: Sequence[Cells]) -> None:
        for each in gathered(cells):
            for made in estimator.estimates(each):
                flat_labels[made.places] = table.sure(made.labels, made.share)
                flat_confidence[made.places] = made.share
                opened.append(made.places[made.open])
                if sum(map(len, opened)) > _OPEN:
                    close()

    def close() -> None:
        left = np.unique(np.concatenate([*opened, np.empty(0, np.intp)]))
        opened.clear()
        step = max(_CHUNK // scores.phrases, 1)
        for start in range(0, len(left), step):
            part = left[start : start + step]
            flat_labels[part], flat_confidence[part] = _exact(scores, size, part, owners, table)

    waiting: list[Cells] = []
    for band in bands(scores, axes):
        labels[band.rows] = table.label_ids[owners[band.leader]][band.down][:, band.across]
        waiting += band.cells
        if sum(each.controls.size for each in waiting) > _WAITING:
            settle(waiting)
            waiting.clear()
    settle(waiting)
    close()
    return Assignment(cast(LabelArray, labels), confidence)


def _exact(
    scores: Scores, size: tuple[int, int], places: Ids, owners: Ids, table: LabelTable
) -> tuple[LabelArray, Values]:
    """Labels and confidences by exact scores, at pixels that are counted row by row; [N] each."""
    rows, columns = np.divmod(places, size[1])
    down, across = (interpolation_weights(*lengths) for lengths in zip(scores.size, size, strict=True))
    left, right = across.low[columns], across.high[columns]
    share = across.weight[columns][:, None]
    above, below = (
        blend(scores.at(row, left), scores.at(row, right), share) for row in (down.low[rows], down.high[rows])
    )
    values = blend(above, below, down.weight[rows][:, None])  # [N, P]
    merged, _ = merge_names(np.ascontiguousarray(values.T), owners)
    index = merged.argmax(0)  # of equals the first
    logits = scores.logits(merged)
    logits -= logits.max(0)
    logits /= scores.temperature
    total = np.exp(logits, out=logits).sum(0)
    share = np.reciprocal(total, out=total)
    return table.sure(table.label_ids[index], share), share


def match_refined(
    scores: Scores, image: NDArray[np.uint8], size: tuple[int, int], table: LabelTable, refine: Refine
) -> Assignment:
    """As `match`, after the probabilities of the groups were drawn to the edges of the image.

    Only groups that win somewhere are refined. The confidence of a pixel is the refined probability of its winner.

    Args:
        scores: The scores of the phrases.
        image: [h', w', 3] uint8 RGB; the refinement is made at this size, and its result resized (bilinear) to `size`.
        size: (H, W) of the labels.
        table: What the phrases stand for.
        refine: Refines the maps, see `refine.pamr`.

    Returns:
        The label of every pixel, and its confidence.
    """
    small = (image.shape[0], image.shape[1])
    occurring = occurring_groups(scores, small, table.groups)

    def probabilities(chosen: Ids) -> Values:
        return _probabilities(scores, small, table.groups, chosen)

    return refined(occurring, probabilities, image, size, table, refine)


def refined(
    occurring: Ids,
    probabilities: Callable[[Ids], Values],
    image: NDArray[np.uint8],
    size: tuple[int, int],
    table: LabelTable,
    refine: Refine,
) -> Assignment:
    """What wins once the probabilities of the groups were drawn to the edges of the image, see `match_refined`.

    Args:
        occurring: The groups that win somewhere.
        probabilities: Groups -> their probabilities at the size of the image, [K, h', w'].
        image: [h', w', 3] uint8 RGB.
        size: (H, W) of the labels.
        table: What the phrases stand for.
        refine: Refines the maps.

    Returns:
        The label of every pixel, and its confidence.
    """
    small = (image.shape[0], image.shape[1])
    at_once = max(_REFINED_ELEMENTS // (small[0] * small[1]), 1)
    labels = np.empty(size, table.label_ids.dtype)
    confidence = empty_confidence(size)
    confidence[:] = -1
    for start in range(0, len(occurring), at_once):
        chosen = occurring[start : start + at_once]
        drawn = refine(probabilities(chosen), image)
        for band, resized in _resized_bands(drawn, size):
            best = resized.max(0)  # [rows, W]
            wins = best.astype(confidence.dtype) > confidence[band]  # as it is kept, so that of equals the first wins
            labels[band][wins] = table.labels(chosen, first_index(resized, best)[wins], best[wins])
            confidence[band][wins] = best[wins]
    return Assignment(cast(LabelArray, labels), confidence)


def empty_confidence(size: tuple[int, int]) -> ConfidenceArray:
    """Room for the confidence of an image of `size`."""
    large = size[0] * size[1] > _LARGE
    return cast(ConfidenceArray, np.empty(size, np.float16 if large else np.float32))


def best_groups(
    scores: Scores, size: tuple[int, int], groups: Sequence[int], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """The best `count` groups at each cell of a grid of `size` (h, w), and softmax(log score / temperature) of each over all.

    Both are [count, h, w], the best first; of equals the first group comes first.
    """
    return best_of(_shares(scores, size, groups), size, count)


def best_of(
    bands: Iterable[tuple[slice, Values]], size: tuple[int, int], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """What `best_groups` gives, of bands of rows with the shares of all groups, [G, rows, w]."""
    index = np.empty((count, *size), np.intp)
    share = np.empty((count, *size), np.float16)
    for band, shares in bands:
        order = np.argsort(-shares, axis=0, kind="stable")[:count]  # [count, rows, w]
        index[:, band] = order
        share[:, band] = np.take_along_axis(shares, order, 0)
    return index, share


def occurring_groups(scores: Scores, size: tuple[int, int], groups: Sequence[int]) -> Ids:
    """The groups that win somewhere in an image of `size` (H, W), in their order."""
    numbers = np.arange(len(groups), dtype=np.uint16)
    won = match(scores, size, LabelTable(groups, numbers, np.zeros(len(groups), np.float32), 0)).labels
    return np.flatnonzero(np.bincount(won.reshape(-1), minlength=len(groups)))


def merge_names(values: Values, owners: Ids) -> tuple[Values, Ids]:
    """The maximum over the phrases of each owner, [K, ...] -> [G', ...], and the owners [G']; `owners` [K] is sorted."""
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(firsts) == len(owners):
        return values, owners
    merged = np.empty((len(firsts), *values.shape[1:]), np.float32)
    # numpy's reduceat takes three times as long.
    for target, start, stop in zip(merged, firsts, [*firsts[1:], len(owners)], strict=True):
        values[start:stop].max(0, out=target)
    return merged, owners[firsts]


def first_index(values: Values, best: Values) -> NDArray[np.unsignedinteger]:
    """The first index at which [K, ...] holds its maximum `best`."""
    # numpy's argmax along the first axis takes ten times as long.
    index = np.zeros(best.shape, np.uint8 if len(values) <= 256 else np.uint16)
    behind = np.ones(best.shape, bool)
    for each in values[:-1]:
        behind &= each != best
        index += behind
    return index


def _shares(scores: Scores, size: tuple[int, int], groups: Sequence[int]) -> Iterator[tuple[slice, Values]]:
    """Bands of rows of an image of `size`, each with softmax(log score / temperature) of all groups, [G, rows, W]."""
    owners = np.repeat(np.arange(len(groups)), groups)
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
            values = resize_maps(scores.values(rows.span, part.span), rows.within, part.within)
            pieces.append(merge_names(np.ascontiguousarray(values.transpose(2, 0, 1)), owners)[0])
        shares = scores.logits(np.concatenate(pieces, 2))
        shares -= shares.max(0)
        shares /= scores.temperature
        np.exp(shares, out=shares)
        shares /= shares.sum(0)
        yield slice(start, start + step), shares


def _probabilities(scores: Scores, size: tuple[int, int], groups: Sequence[int], chosen: Ids) -> Values:
    """softmax(log score / temperature) over all groups, for the chosen ones: [K, h', w']."""
    soft = np.empty((len(chosen), *size), np.float32)
    for band, shares in _shares(scores, size, groups):
        soft[:, band] = shares[chosen]
    return soft


def _resized_bands(maps: Values, size: tuple[int, int]) -> Iterator[tuple[slice, Values]]:
    """Bands of rows of maps [K, h, w] resized to `size`, [K, rows, W] each."""
    rows, columns = (interpolation_weights(*lengths) for lengths in zip(maps.shape[1:], size, strict=True))
    step = max(_CHUNK // (len(maps) * size[1]), 1)
    for start in range(0, size[0], step):
        part = rows.part(start, start + step)
        yield slice(start, start + step), resize(maps[:, part.span], part.within, columns)
