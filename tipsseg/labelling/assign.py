"""Turn cosine maps into a label and a confidence for every pixel, tile by tile.

The published protocol merges sliding windows as follows: resize cosines to the window (bilinear), apply a softmax over phrases
without temperature, sum the probabilities over windows, divide by the number of windows at the pixel, resize to the image
(bilinear), and take the largest. `match` computes the same numbers for one tile of the image at a time, at full resolution only for
phrases that can win there (`winners`). Phrases of one class are merged last, by their maximum at each pixel.

It uses numpy on one core, because several threads label images while the model runs. See `device_scores` for GPUs, and README.md
for the proof.

The parts of a whole compete for its pixels only: each contest of the vocabulary (see `vocabulary.Contest`) is a level, with its own
scores and the same machinery, and `add_parts` joins it to the labels.

If classes overlap, each is labelled as if it were the only one: a contest is a class against its background, with the phrases that
a run with that class alone has. The classes share cosines and bounds. A bound from the background phrases that all contests share
shows in which parts of the image a class cannot win; there, its contest computes nothing.

Shapes: P phrases, G groups (the phrases of one class, or of background), H x W labels, h x w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scores import Axes, PatchScores, grid_weights, make_scores
from tipsseg.labelling.sums import Ids, Values, resize
from tipsseg.labelling.winners import (
    CHUNK,
    ROUNDING,
    Part,
    Span,
    argmax,
    batches,
    distances,
    find_winners,
    lead,
    merge_names,
    spans,
    tile_array,
    tiles,
)
from tipsseg.regions.objects import Layer, make_layers
from tipsseg.types import ConfidenceArray, LabelArray, WindowPlan

#: Images with more pixels get a 16-bit confidence: 32 bits would take as much memory as decoding them.
_LARGE = 64_000_000

#: Soft maps per refinement, maps x rows x columns: 256 MB.
_REFINED_ELEMENTS = 64_000_000

#: Function that refines maps [K, h, w] according to an image [h, w, 3].
Refine = Callable[[Values, NDArray[np.uint8]], Values]


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

    The tiles of a part (top, left, height, width) start at its corner, so that its labels and confidences are those of a larger
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
    _match_parts(scores, size, table, parts, None, labels, confidence)
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
        confidence: [H, W], their confidence. That of a part is p(whole) * p(part in the whole).
        level: The contest inside the whole.
        found: Its labels and confidences. They are used on pixels of the whole only.
        minimum: [N + 1] float32, the minimum confidence by label id.
    """
    part = (labels == level.whole) & (found.labels != level.whole)
    ids, share = found.labels[part], confidence[part] * found.confidence[part]
    sure = share >= minimum[ids]
    part[part] = sure
    labels[part], confidence[part] = ids[sure], share[sure]


def crop(assigned: Assignment, inner: tuple[int, int, int, int]) -> Assignment:
    """Return a part of labels: top, left, height and width."""
    top, left, height, width = inner
    part = slice(top, top + height), slice(left, left + width)
    labels, confidence = np.ascontiguousarray(assigned.labels[part]), np.ascontiguousarray(assigned.confidence[part])
    return Assignment(cast(LabelArray, labels), cast(ConfidenceArray, confidence))


def match_first(scores: PatchScores, size: tuple[int, int], table: LabelTable, parts: Sequence[Part]) -> Assignment:
    """Find labels like `match`, but only in some of the `spans`, and only where group 0 may win.

    Elsewhere the label is 0, with confidence 0. Where group 0 wins, label and confidence are those of `match`.
    """
    labels = np.zeros(size, table.label_ids.dtype)
    confidence = allocate_confidence(size)
    confidence[:] = 0
    _match_parts(scores, size, table, parts, 0, labels, confidence)
    return Assignment(cast(LabelArray, labels), confidence)


def _match_parts(
    scores: PatchScores,
    size: tuple[int, int],
    table: LabelTable,
    parts: Sequence[Part],
    needed: int | None,
    labels: NDArray[np.unsignedinteger],
    confidence: ConfidenceArray,
) -> None:
    owners = np.repeat(np.arange(len(table.groups)), table.groups)
    for tile in tiles(scores, size, owners, parts, needed):
        region = tile.rows, tile.columns
        for band, groups, index, share in find_winners(scores, tile, owners):
            labels[region][band] = table.labels(groups, index, share)
            confidence[region][band] = share


def match_refined(
    scores: PatchScores, image: NDArray[np.uint8], size: tuple[int, int], table: LabelTable, refine: Refine
) -> Assignment:
    """Find labels like `match`, after refining the group probabilities along the edges of the image.

    Refine only groups that win somewhere, at the size of `image` [h', w', 3] uint8 RGB, and resize the result (bilinear) to
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
            wins = (
                best.astype(confidence.dtype) > confidence[band]
            )  # in the stored precision, so that the first of equal groups wins
            labels[band][wins] = table.labels(chosen, argmax(resized, best)[wins], best[wins])
            confidence[band][wins] = best[wins]
    return Assignment(cast(LabelArray, labels), confidence)


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


def group_shares(scores: PatchScores, size: tuple[int, int], groups: Sequence[int]) -> Values:
    """Return softmax(log score / temperature) of all groups at each cell of a grid of `size` (h, w): [G, h, w]."""
    return _probabilities(scores, size, groups, np.arange(len(groups)))


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


def _probabilities(scores: PatchScores, size: tuple[int, int], groups: Sequence[int], chosen: Ids) -> Values:
    """Return the probabilities of the chosen groups, softmax(log score / temperature) over all groups: [K, h', w']."""
    soft = np.empty((len(chosen), *size), np.float32)
    for band, shares in _shares(scores, size, groups):
        soft[:, band] = shares[chosen]
    return soft


def _resize_in_bands(maps: Values, size: tuple[int, int]) -> Iterator[tuple[slice, Values]]:
    """Resize maps [K, h, w] to `size`, and yield bands of rows: the rows, and the maps [K, rows, W]."""
    rows, columns = grid_weights((maps.shape[1], maps.shape[2]), size)
    step = max(CHUNK // (len(maps) * size[1]), 1)
    for start in range(0, size[0], step):
        part = rows.part(start, start + step)
        yield slice(start, start + step), resize(maps[:, part.span, columns.span], part, columns)


#: The label of the class in its contest.
_OWN = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassContest:
    """A class against its background.

    Attributes:
        class_id: Label id of the class, 1..N.
        phrases: [K], the phrases of the class, then those of its background, as indices of shared cosines.
        table: The label table of these phrases, with label id 1 for the class and 0 for the background.
    """

    class_id: int
    phrases: Ids
    table: LabelTable

    @property
    def own(self) -> Ids:
        """The phrases of the class."""
        return self.phrases[: self.table.groups[0]]

    @property
    def background(self) -> Ids:
        return self.phrases[self.table.groups[0] :]


def label_alone(
    contests: Sequence[ClassContest],
    cosines: Sequence[Values],
    plans: Sequence[WindowPlan],
    temperature: float,
    size: tuple[int, int],
    image: NDArray[np.uint8] | None = None,
    refine: Refine | None = None,
) -> list[Layer]:
    """Return the pixels of each class that wins some, in the order of the contests.

    Args:
        contests: The contests.
        cosines: [windows, h, w, P] float32 at each scale, for the phrases of all contests.
        plans: The windows at each scale.
        temperature: Temperature of the softmax for confidences.
        size: (H, W) of the image.
        image: With `refine`, the image that refinement follows, see `assign.match_refined`.
        refine: Function that refines maps. None: labels are not refined.
    """
    layers: list[Layer] = []
    place = size if image is None else (image.shape[0], image.shape[1])
    everything = make_scores(cosines, plans, temperature)
    for contest, parts in zip(contests, _find_parts(contests, everything, place), strict=True):
        if not parts:
            continue
        own = [np.take(scale, contest.phrases, -1) for scale in cosines]
        if refine is not None and image is not None:
            scores = make_scores(own, plans, temperature)
            if 0 not in occurring_groups(scores, place, contest.table.groups):
                continue
            found = match_refined(scores, image, size, contest.table, refine)
        else:
            found = match_first(make_scores(own, plans, temperature), size, contest.table, parts)
        layers += _layers(contest, found)
    return layers


def _layers(contest: ClassContest, found: Assignment) -> list[Layer]:
    return make_layers(contest.class_id, found.labels == _OWN, found.confidence)


def _find_parts(contests: Sequence[ClassContest], scores: PatchScores, size: tuple[int, int]) -> list[list[Part]]:
    """Return for each contest the parts of an image of `size` (H, W) in which its class may win, with shared corners."""
    shared = contests[0].background
    for contest in contests[1:]:
        shared = np.intersect1d(shared, contest.background, assume_unique=True)
    if not len(shared):
        return [[Part(span, span) for span in spans(scores, size)] for _ in contests]
    own = [contest.own for contest in contests]
    starts, phrases = np.cumsum([0, *map(len, own[:-1])]), np.concatenate(own)
    axes = grid_weights(scores.size, size)
    found: list[list[Part]] = [[] for _ in contests]
    for batch in batches(spans(scores, size), scores):
        tiles = tile_array(batch)
        corners = scores.corners(axes, tiles)
        leaders = lead([values[:, :, shared] for values in corners])
        margins = distances(leaders, [values[:, :, phrases] for values in corners])  # [T, P]
        hopes = np.minimum.reduceat(margins, starts, 1) <= ROUNDING  # [T, contests]
        reach = scores.reach(axes, tiles)
        for tile, number in np.argwhere(hopes).tolist():
            contest, inner = contests[number], batch[tile]
            if reach is not None:
                near = (leaders[0][tile][:, None] - corners[0][tile][:, contest.own] <= ROUNDING).any(1)  # [N]
                inner = _resized(reach[tile][near], axes, batch[tile])
            # In a small image, a part of the grid may affect no pixel.
            if all(axis.start < axis.stop for axis in inner):
                found[number].append(Part(batch[tile], inner))
    return found


def _resized(reach: Ids, axes: Axes, span: Span) -> Span:
    """Return the rows and columns of `span` that depend on the cells of the grid in `reach`, [n, 4]."""
    found = []
    for axis, part, first, last in zip(axes, span, reach[:, ::2].min(0), reach[:, 1::2].max(0), strict=True):
        start, stop = np.searchsorted(axis.high, first, "left"), np.searchsorted(axis.low, last, "right")
        found.append(slice(max(part.start, int(start)), min(part.stop, int(stop))))
    return found[0], found[1]
