"""Which phrases matter in which cells of an image: those that may win there, and those that count for the confidence.

Shapes: P phrases, C cells, K phrases of a cell, i x j control points of a cell, r x c cells of a band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.cells import Axis, Indices
from tipsseg.labelling.resample import Values
from tipsseg.labelling.scores import Scores

#: Control points x phrases that are at hand at once: 4 MB.
_CONTROLS = 1 << 20

#: Temperatures by which the logit of a phrase stays below the best, at all control points and at their mean, from which on it does
#: not count: less than 5e-5 of the best.
_NOTHING = 10.0

#: Leading phrases that a bound is made of, at most.
_LEADERS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Cells that have the same number of control points, and in which about the same number of phrases matters: two or more.

    Attributes:
        down: [C], the row of cells of each.
        across: [C], its column of cells.
        phrases: [K, C], the phrases that matter, ascending. Behind them the last is named again, to fill up.
        counts: [C], how many of them there are.
        controls: [i, j, K, C] float32, their logits at the control points, less those of one phrase.
        error: [C] float32, how far the difference of two estimates may be off.
    """

    down: Indices
    across: Indices
    phrases: Indices
    counts: Indices
    controls: Values
    error: Values


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Some rows of cells.

    Attributes:
        rows: The rows of the image.
        down: Of each of these the row of cells, counted within the band.
        across: Of each column of the image the column of cells.
        leader: [r, c], a phrase that is good in all of each cell; the winner where none but it matters.
        cells: Those in which others matter too.
    """

    rows: slice
    down: Indices
    across: Indices
    leader: Indices
    cells: Sequence[Cells]


def bands(scores: Scores, axes: tuple[Axis, Axis]) -> Iterator[Band]:
    """The cells of an image, some rows at a time, and the phrases that matter in each.

    A phrase does not win in a cell if it is below a mean h of some leading phrases, by more than estimates may be off, at all
    control points. Estimates are means of control points, with weights that are the same for all phrases. So at each pixel of the
    grid that a pixel of the image is resized from, the logarithm of its probability is below h, and the probability below the same
    mean of the leaders' probabilities, as exp is convex. Resizing is a mean too: the score of the phrase is below that mean of the
    leaders' scores, and below the best of them.
    """
    rows, columns = axes
    error = scores.error(rows, columns)
    across = int(columns.control[-1] + columns.controls[-1])
    per_row = int(rows.controls.max()) * across * scores.phrases
    step = max(_CONTROLS // per_row, 1)
    cell = [np.repeat(axis.cell, axis.pixels) for axis in axes]
    for first in range(0, len(rows.control), step):
        stop = min(first + step, len(rows.control))
        part = slice(int(rows.control[first]), int(rows.control[stop - 1] + rows.controls[stop - 1]))
        controls = np.ascontiguousarray(scores.controls(part, slice(0, across)))
        leader = np.empty((stop - first, len(columns.control)), np.intp)
        found: list[Cells] = []
        for i in np.unique(rows.controls[first:stop]).tolist():
            for j in np.unique(columns.controls).tolist():
                down = np.flatnonzero(rows.controls[first:stop] == i) + first
                right = np.flatnonzero(columns.controls == j)
                corner = (rows.control[down] - part.start)[:, None] * across + columns.control[right]
                points = np.arange(i)[:, None] * across + np.arange(j)
                values = controls.reshape(-1, scores.phrases)[points.reshape(-1, 1, 1) + corner]  # [i * j, r, c, P]
                middle = values.mean(0)
                leads = middle.argmax(-1)
                bound = _bound(values, leads)
                leader[np.ix_(down - first, right)] = leads
                bound -= error[np.ix_(down, right)]
                np.minimum(bound, values.max(-1) - _NOTHING * scores.temperature, out=bound)
                matter = _reach(values, bound)
                best = np.take_along_axis(middle, leads[..., None], -1)
                matter |= middle >= best - _NOTHING * scores.temperature
                for r, c, phrases, counts in _by_number(matter):
                    start = (corner[r, c] + points[..., None]) * scores.phrases  # [i, j, C]
                    own = controls.reshape(-1).take(start[:, :, None] + phrases)
                    own -= controls.reshape(-1).take(start + leads[r, c])[:, :, None]
                    found.append(Cells(down[r], right[c], phrases, counts, own, error[down[r], right[c]]))
        own_rows = slice(*np.searchsorted(cell[0], [first, stop]).tolist())
        yield Band(own_rows, cell[0][own_rows] - first, cell[1], leader, found)


def gathered(parts: Sequence[Cells]) -> Iterator[Cells]:
    """The same cells, in as few parts as there can be."""

    def shape(cells: Cells) -> tuple[int, ...]:
        return cells.controls.shape[:3]

    for _, group in groupby(sorted(parts, key=shape), shape):
        alike = list(group)
        yield Cells(
            np.concatenate([each.down for each in alike]),
            np.concatenate([each.across for each in alike]),
            np.concatenate([each.phrases for each in alike], 1),
            np.concatenate([each.counts for each in alike]),
            np.concatenate([each.controls for each in alike], 3),
            np.concatenate([each.error for each in alike]),
        )


def _bound(values: Values, leader: Indices) -> Values:
    """The mean of a few leading phrases, of which one is given, at each control point of cells, [i * j, r, c].

    The more control points differ in what is best there, the more leaders it takes so that their mean is high at all of them.
    `values` is [i * j, r, c, P], `leader` [r, c].
    """
    down, across = np.indices(leader.shape)
    bound = values[:, down, across, leader]  # [i * j, r, c]
    for number in range(2, _LEADERS + 1):
        best = values[bound.argmin(0), down, across].argmax(-1)
        wider = bound + (values[:, down, across, best] - bound) / np.float32(number)
        better = wider.min(0) > bound.min(0)
        if not better.any():
            break
        bound = np.where(better, wider, bound)
    return bound


def _reach(values: Values, bound: Values) -> NDArray[np.bool_]:
    """The phrases that reach a bound, [i * j, r, c], at some control point: [i * j, r, c, P] -> [r, c, P]."""
    most = values[0] - bound[0][..., None]
    above = np.empty_like(most)
    for value, each in zip(values[1:], bound[1:], strict=True):
        np.maximum(most, np.subtract(value, each[..., None], out=above), out=most)
    reached: NDArray[np.bool_] = most >= 0
    return reached


def _by_number(matter: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices, Indices, Indices]]:
    """Cells by how many phrases matter in them, [r, c, P]: rows, columns, phrases and counts as in `Cells`."""
    counts = matter.sum(-1)
    rows, columns = np.nonzero(counts > 1)
    if not len(rows):
        return
    number = counts[rows, columns]
    # Rounded up to one of few numbers.
    step = 1 << np.maximum(np.floor(np.log2(number)).astype(np.intp) - 2, 0)
    padded = -(-number // step) * step
    order = np.argsort(padded, kind="stable")
    for start, stop in pairwise(np.flatnonzero(np.diff(padded[order], prepend=-1, append=-1)).tolist()):
        chosen = order[start:stop]
        r, c, many = rows[chosen], columns[chosen], number[chosen]
        phrase = np.nonzero(matter[r, c])[1]
        places = np.minimum(np.arange(padded[chosen[0]])[:, None], many - 1) + (np.cumsum(many) - many)  # [K, C]
        yield r, c, phrase[places], many
