"""Turn cosine maps into a label and a confidence for every pixel, tile by tile.

The published protocol merges sliding windows as follows: resize cosines to the window (bilinear), apply a softmax over phrases
without temperature, sum the probabilities over windows, divide by the number of windows at the pixel, resize to the image
(bilinear), and take the largest. `match` computes the same numbers for one tile of the image at a time, at full resolution only for
phrases that can win there (`winners`). Phrases of one class are merged last, by their maximum at each pixel.

It uses numpy on one core, because several threads label images while the model runs. See `device_scores` for GPUs, and README.md
for the proof.

The parts of a whole compete for its pixels only: each contest of the vocabulary (see `vocabulary.Contest`) is a level, with its own
scores and the same machinery, and `add_parts` joins it to the labels.

Shapes: P phrases, G groups (the phrases of one class, or of background), H x W labels, h x w patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scores import PatchScores, grid_weights, make_scores
from tipsseg.labelling.sums import Ids, Values, resize
from tipsseg.labelling.winners import (
    CHUNK,
    Part,
    Span,
    find_winners,
    merge_names,
    spans,
    tiles,
)
from tipsseg.types import ConfidenceArray, LabelArray, WindowPlan

#: Images with more pixels get a 16-bit confidence: 32 bits would take as much memory as decoding them.
_LARGE = 64_000_000


#: The exponent of `sharpen` for the confidence of a part inside its whole: so a minimum means for parts what it means for other
#: classes. Chosen on synthetic scenes, see tests/benchmarks/README.md.
_PART_SHARPNESS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """Groups and label ids of the phrases.

    Attributes:
        groups: Number of phrases in each group, in phrase order.
        label_ids: [G], label id of each group.
        min_confidence: [N] float32, minimum confidence by label id. Pixels below it are ignored.
        ignore: Label id of ignored pixels.
    """

    groups: Sequence[int]
    label_ids: LabelArray
    min_confidence: NDArray[np.float32]
    ignore: int

    def labels(self, groups: Ids, index: NDArray[np.unsignedinteger], confidence: Values) -> LabelArray:
        """Return label ids [H, W] for winners at `index` [H, W] of `groups`, with `confidence` [H, W]."""
        labels = self.label_ids[groups].take(index)
        if self.min_confidence.any():
            labels[confidence < self.min_confidence[labels]] = self.ignore
        return labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadyContest:
    """A contest of the vocabulary, ready to be scored.

    Attributes:
        whole: Label id of the whole whose pixels are contested; 0 for the image.
        phrases: [K], the phrases as indices of the cosines; None for all of them.
        biases: [K] float32, added to the cosines of these phrases; None for none.
        table: The label table of these phrases.
    """

    whole: int
    phrases: Ids | None = None
    biases: Values | None = None
    table: LabelTable

    def scores(self, cosines: Sequence[Values], plans: Sequence[WindowPlan], temperature: float) -> PatchScores:
        """Return the scores of the contest from the cosines of all phrases, [windows, h, w, P] float32 at each scale."""
        if self.phrases is not None:
            cosines = [np.take(scale, self.phrases, -1) for scale in cosines]
        if self.biases is not None:
            cosines = [scale + self.biases for scale in cosines]
        return make_scores(cosines, plans, temperature)


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Label and confidence of each pixel.

    Attributes:
        labels: [H, W], label id of the winning group, or the ignore id.
        confidence: [H, W] float32 in [0, 1]; float16 above _LARGE pixels.
    """

    labels: LabelArray
    confidence: ConfidenceArray


def match(
    scores: PatchScores,
    size: tuple[int, int],
    table: LabelTable,
    inner: tuple[int, int, int, int] | None = None,
    where: NDArray[np.bool_] | None = None,
) -> Assignment:
    """Find the label and the confidence of every pixel of an image of `size` (H, W), or of its part `inner`.

    With `where` [H, W], a mask of the image or of its part, tiles outside it are skipped: their values have no meaning.

    Cosines show which phrases cannot win in a tile. Their scores are not computed at the size of the image; README.md proves
    that this changes no label. In addition to the result, this takes a few MB and one map of sums per window.

    The tiles of a part (top, left, height, width) start at its corner, so that its labels and confidences are as in a larger
    image whose tiles also start there.
    """
    labels = np.empty(size, table.label_ids.dtype)
    confidence = allocate_confidence(size)
    top, left, height, width = inner or (0, 0, *size)
    parts = []
    for span in spans(scores, (height, width), same=inner is not None):
        part = span if where is None else _box_of(where, span)
        if part is not None:
            parts.append(Part(_moved(span, top, left), _moved(part, top, left)))
    owners = np.repeat(np.arange(len(table.groups)), table.groups)
    for tile in tiles(scores, size, owners, parts):
        region = tile.rows, tile.columns
        for band, groups, index, share in find_winners(scores, tile, owners):
            labels[region][band] = table.labels(groups, index, share)
            confidence[region][band] = share
    found = Assignment(cast(LabelArray, labels), confidence)
    return found if inner is None else crop(found, inner)


def _moved(span: Span, down: int, right: int) -> Span:
    rows, columns = span
    return slice(rows.start + down, rows.stop + down), slice(columns.start + right, columns.stop + right)


def _box_of(where: NDArray[np.bool_], span: Span) -> Span | None:
    """Return the rows and columns around the True pixels of a mask in `span`; None if there are none."""
    rows, columns = (np.flatnonzero(where[span].any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = span[0].start, span[1].start
    return (
        slice(top + int(rows[0]), top + int(rows[-1]) + 1),
        slice(left + int(columns[0]), left + int(columns[-1]) + 1),
    )


def add_parts(
    labels: LabelArray,
    confidence: ConfidenceArray,
    level: ReadyContest,
    found: Assignment,
    minimum: NDArray[np.float32],
) -> None:
    """Give the pixels of a whole to the parts that win them, in place, unless their confidence is too low.

    Args:
        labels: [H, W], the label ids so far.
        confidence: [H, W], their confidence. The confidence of a part is w * s^2 / (s^2 + (1 - s)^2), with the confidence w of its
            whole and s of the part in it (see `sharpen`).
        level: The contest inside the whole.
        found: Its labels and confidences. They are used on pixels of the whole only.
        minimum: [N + 1] float32, the minimum confidence by label id.
    """
    part = (labels == level.whole) & (found.labels != level.whole)
    ids, share = found.labels[part], confidence[part] * sharpen(found.confidence[part], _PART_SHARPNESS)
    sure = share >= minimum[ids]
    part[part] = sure
    labels[part], confidence[part] = ids[sure], share[sure]


def sharpen(confidence: ConfidenceArray, exponent: float) -> Values:
    """Return p^s / (p^s + (1 - p)^s) for each confidence p and an exponent s, in float32."""
    with np.errstate(divide="ignore", over="ignore"):
        odds = np.power(1 / confidence.astype(np.float32) - 1, np.float32(exponent))
    return cast(Values, 1 / (1 + odds))


def crop(assigned: Assignment, inner: tuple[int, int, int, int]) -> Assignment:
    """Return a part of labels: top, left, height and width."""
    top, left, height, width = inner
    part = slice(top, top + height), slice(left, left + width)
    labels, confidence = np.ascontiguousarray(assigned.labels[part]), np.ascontiguousarray(assigned.confidence[part])
    return Assignment(cast(LabelArray, labels), cast(ConfidenceArray, confidence))


def allocate_confidence(size: tuple[int, int]) -> ConfidenceArray:
    large = size[0] * size[1] > _LARGE
    return cast(ConfidenceArray, np.empty(size, np.float16 if large else np.float32))


def best_groups(
    scores: PatchScores, size: tuple[int, int], groups: Sequence[int], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """Return the best `count` groups at each cell of a grid of `size` (h, w), and their softmax(log score / temperature).

    Both are [count, h, w], best first. Equal groups keep their order.
    """
    index = np.empty((count, *size), np.intp)
    share = np.empty((count, *size), np.float16)
    for band, shares in _shares(scores, size, groups):
        order = np.argsort(-shares, axis=0, kind="stable")[:count]  # [count, rows, w]
        index[:, band] = order
        share[:, band] = np.take_along_axis(shares, order, 0)
    return index, share


def occurring_groups(scores: PatchScores, size: tuple[int, int], groups: Sequence[int]) -> Ids:
    """Return the groups that win at some pixel of an image of `size` (H, W), in ascending order."""
    numbers = np.arange(len(groups), dtype=np.uint16)
    won = match(scores, size, LabelTable(groups, numbers, np.zeros(len(groups), np.float32), 0)).labels
    return np.flatnonzero(np.bincount(won.reshape(-1), minlength=len(groups)))


def _shares(scores: PatchScores, size: tuple[int, int], groups: Sequence[int]) -> Iterator[tuple[slice, Values]]:
    """Yield bands of rows of an image of `size`: the rows, and softmax(log score / temperature) of all groups, [G, rows, W]."""
    owners = np.repeat(np.arange(len(groups)), groups)
    all_phrases = np.arange(len(owners))
    weights, columns = grid_weights(scores.size, size)
    # A row of a small image depends on many rows of the grid, so its columns are processed in pieces too.
    finer = [max(-(-source // length), 1) for source, length in zip(scores.size, size, strict=True)]
    width = max(min(CHUNK // (len(owners) * 2 * finer[0] * finer[1]), size[1]), 1)
    step = max(CHUNK // (len(owners) * size[1] * finer[0] * finer[1]), 1)
    for start in range(0, size[0], step):
        rows = weights.part(start, start + step)
        pieces = []
        for left in range(0, size[1], width):
            part = columns.part(left, left + width)
            values = scores.values(rows.span, part.span, all_phrases)
            pieces.append(merge_names(resize(values, rows, part), owners)[0])
        shares = scores.logits(np.concatenate(pieces, 2))
        shares -= shares.max(0)
        shares /= scores.temperature
        np.exp(shares, out=shares)
        shares /= shares.sum(0)
        yield slice(start, start + step), shares


def probabilities(scores: PatchScores, size: tuple[int, int], groups: Sequence[int], chosen: Ids) -> Values:
    """Return the probabilities of the chosen groups, softmax(log score / temperature) over all groups: [K, h', w']."""
    soft = np.empty((len(chosen), *size), np.float32)
    for band, shares in _shares(scores, size, groups):
        soft[:, band] = shares[chosen]
    return soft
