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

#: Temperatures by which the cosine of a phrase stays below the best, from which on it does not count: less than 5e-5.
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

    A phrase does not win in a cell if it is below another at all control points by more than estimates may be off: an estimate
    is a mean of control points, with weights that are the same for all phrases. In place of another phrase, a mean of
    some will do, as the best of them is no lower.
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
                leads, margins = _margins(controls, corner, points.reshape(-1))
                leader[np.ix_(down - first, right)] = leads
                here = np.ix_(down, right)
                matter = margins <= np.maximum(error[here], _NOTHING * scores.temperature)[..., None]
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


def _margins(controls: Values, corner: Indices, points: Indices) -> tuple[Indices, Values]:
    """A leader of each cell, [r, c], and the smallest distance of each phrase to a mean of a few leading ones, [r, c, P].

    The more control points differ in what is best there, the more leaders it takes so that their mean is high at all of them.

    Args:
        controls: [.., .., P], the control points of a band.
        corner: [r, c], the first control point of each cell.
        points: [i * j], the places of its control points, from there.
    """
    values = controls.reshape(-1, controls.shape[2])[points[:, None, None] + corner]  # [i * j, r, c, P]
    leader = values.sum(0).argmax(-1)
    down, across = np.indices(leader.shape)
    bound = values[:, down, across, leader]  # [i * j, r, c]
    for number in range(2, _LEADERS + 1):
        best = values[bound.argmin(0), down, across].argmax(-1)
        wider = bound + (values[:, down, across, best] - bound) / np.float32(number)
        better = wider.min(0) > bound.min(0)
        if not better.any():
            break
        bound = np.where(better, wider, bound)
    margins = bound[0][..., None] - values[0]
    for each, value in zip(bound[1:], values[1:], strict=True):
        np.subtract(each[..., None], value, out=value)
        np.minimum(margins, value, out=margins)
    return leader, margins


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
