"""Label each class as if it were the only one, so that classes may overlap.

A contest is a class against its background, with the phrases that a run with that class alone has. The classes share cosines and
bounds. A bound from the background phrases that all contests share shows in which parts of the image a class cannot win; there, its
contest computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tipsseg.labelling.assign import Assignment, LabelTable, match_first, occurring_groups
from tipsseg.labelling.edges import Guide, match_refined
from tipsseg.labelling.scores import Axes, PatchScores, grid_weights, make_scores
from tipsseg.labelling.sums import Ids, Values
from tipsseg.labelling.winners import ROUNDING, Part, Span, batches, distances, lead, spans, tile_array
from tipsseg.regions.objects import Layer, make_layers
from tipsseg.types import WindowPlan

#: The label of the class in its contest.
_OWN = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassContest:
    """A class against its background.

    Attributes:
        class_id: Label id of the class, 1..N.
        phrases: [K], the phrases of the class, then of its background, as indices of shared cosines.
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
    guide: Guide | None = None,
) -> list[Layer]:
    """Return the pixels of each class that wins some, in the order of the contests.

    Args:
        contests: The contests.
        cosines: [windows, h, w, P] float32 at each scale, for the phrases of all contests.
        plans: The windows at each scale.
        temperature: Temperature of the softmax for confidences.
        size: (H, W) of the image.
        guide: What refinement follows. None: labels are not refined.
    """
    layers: list[Layer] = []
    place = size if guide is None else guide.size
    everything = make_scores(cosines, plans, temperature)
    for contest, parts in zip(contests, _find_parts(contests, everything, place), strict=True):
        if not parts:
            continue
        own = [np.take(scale, contest.phrases, -1) for scale in cosines]
        if guide is not None:
            scores = make_scores(own, plans, temperature)
            if 0 not in occurring_groups(scores, place, contest.table.groups):
                continue
            found = match_refined(scores, guide, size, contest.table)
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
