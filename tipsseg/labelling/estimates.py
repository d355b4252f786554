"""Estimates of the logits of phrases in blocks of pixels, for the phrases that matter there: who wins, and how sure that is.

Everything is done for many blocks at once, which stand along the last axis of all arrays.

Shapes: P phrases, K phrases of a block, h x w pixels of a block, B blocks, C cells, i x j control points of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.cells import Axis, Indices
from tipsseg.labelling.resample import Values
from tipsseg.labelling.scores import Scores
from tipsseg.types import LabelArray

#: Phrases x pixels of the blocks that are scored at once: 1 MB, so that they stay in the cache of a core. But no fewer blocks.
_CHUNK, _LEAST_BLOCKS = 1 << 17, 256

#: Control points x phrases that are at hand at once: 4 MB.
_CONTROLS = 1 << 20

#: Temperatures by which the cosine of a phrase stays below the best, from which on it does not count: less than 5e-5.
_NOTHING = 10.0

#: Temperatures that the difference of two estimates may be off by, above which exact scores are made in place of all of them.
_COARSE = 0.5

#: Leading phrases that a bound is made of, at most.
_LEADERS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Cells in which the same number of phrases matters.

    Attributes:
        down: [C], the row of cells of each.
        across: [C], its column of cells.
        leader: [C], a phrase that is good in all of the cell.
        phrases: [K, C], the phrases that matter, in their order. Behind them a phrase may be named again, to fill up.
        counts: [C], how many of them there are.
        error: [C] float32, how far the difference of two estimates may be off.
    """

    down: Indices
    across: Indices
    leader: Indices
    phrases: Indices
    counts: Indices
    error: Values


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Some rows of cells.

    Attributes:
        rows: The rows of the image.
        down: Of each of these the row of cells, counted within the band.
        across: Of each column of the image the column of cells.
        leader: [rows of cells, columns of cells], a phrase that is good in all of each cell.
        cells: Those in which more than one phrase matters, with how many control points they have down and across.
        controls: [.., .., P], the control points.
        origin: The first row of these among all of the axis.
    """

    rows: slice
    down: Indices
    across: Indices
    leader: Indices
    cells: Sequence[tuple[tuple[int, int], Cells]]
    controls: Values
    origin: int


def bands(scores: Scores, axes: tuple[Axis, Axis]) -> Iterator[Band]:
    """The cells of an image, some rows at a time, and the phrases that matter in each."""
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
        found = []
        for i in np.unique(rows.controls[first:stop]):
            for j in np.unique(columns.controls):
                down = np.flatnonzero(rows.controls[first:stop] == i) + first
                right = np.flatnonzero(columns.controls == j)
                leads, margins = _margins(controls, rows.control[down] - part.start, columns.control[right], (i, j))
                leader[np.ix_(down - first, right)] = leads
                least = np.maximum(error[np.ix_(down, right)], _NOTHING * scores.temperature)
                matter = margins <= least[..., None]
                found += [((int(i), int(j)), each) for each in _by_number(matter, leads, down, right, error)]
        own = slice(*np.searchsorted(cell[0], [first, stop]).tolist())
        yield Band(own, cell[0][own] - first, cell[1], leader, found, controls, part.start)


def _margins(controls: Values, down: Indices, across: Indices, size: tuple[int, int]) -> tuple[Indices, Values]:
    """A leader of each cell, [r, c], and the smallest distance of each phrase to a mean of a few leading ones, [r, c, P].

    The more control points differ in what is best there, the more leaders it takes so that their mean is high at all of them.
    """
    values = np.stack(
        [controls[down + i][:, across + j] for i in range(size[0]) for j in range(size[1])]
    )  # [i * j, r, c, P]
    leader = values.sum(0).argmax(-1)
    grid = np.indices(leader.shape)
    bound = values[:, grid[0], grid[1], leader]  # [i * j, r, c]
    for number in range(2, _LEADERS + 1):
        best = values[bound.argmin(0), grid[0], grid[1]].argmax(-1)
        wider = bound + (values[:, grid[0], grid[1], best] - bound) / np.float32(number)
        better = wider.min(0) > bound.min(0)
        if not better.any():
            break
        bound = np.where(better, wider, bound)
    margins = bound[0][..., None] - values[0]
    for each, value in zip(bound[1:], values[1:], strict=True):
        np.minimum(margins, each[..., None] - value, out=margins)
    return leader, margins


def _by_number(
    matter: NDArray[np.bool_], leader: Indices, down: Indices, across: Indices, error: Values
) -> Iterator[Cells]:
    """Cells by how many phrases matter in them, [r, c, P]; those with one alone are left out."""
    counts = matter.sum(-1)
    rows, columns = np.nonzero(counts > 1)
    if not len(rows):
        return
    number = counts[rows, columns]
    padded = _padded(number)
    order = np.argsort(padded, kind="stable")
    cuts = np.flatnonzero(np.diff(padded[order], prepend=-1, append=-1))
    for start, stop in pairwise(cuts):
        chosen = order[start:stop]
        r, c = rows[chosen], columns[chosen]
        most, many = int(padded[chosen[0]]), number[chosen]
        phrase = np.nonzero(matter[r, c])[1]
        begin = np.cumsum(many) - many
        places = np.minimum(np.arange(most)[:, None], many - 1) + begin  # [K, C]
        yield Cells(down[r], across[c], leader[r, c], phrase[places], many, error[down[r], across[c]])


def _padded(number: Indices) -> Indices:
    """A number of phrases, rounded up to one of few."""
    step = 1 << np.maximum(np.floor(np.log2(number)).astype(np.intp) - 2, 0)
    padded: Indices = -(-number // step) * step
    return padded


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Blocks and what wins in them.

    Attributes:
        rows: [h, B], rows of the image.
        columns: [w, B], columns of the image.
        labels: [h, w, B], the label id of the winner where it is decided, else 0.
        share: [h, w, B] float32, its share.
        open: [h, w, B], where an estimate does not decide.
    """

    rows: Indices
    columns: Indices
    labels: LabelArray
    share: Values
    open: NDArray[np.bool_]


class Scratch:
    """Memory that is used again and again: new memory would cost more than what is done in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def floats(self, name: str, *shape: int) -> Values:
        """An array of that shape, whose values are left over from the last use of the name."""
        return self.bytes(name, *shape, 4).reshape(-1).view(np.float32).reshape(shape)

    def bytes(self, name: str, *shape: int) -> NDArray[np.uint8]:
        """The same, of bytes."""
        size = prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size].reshape(shape)


def estimates(
    scores: Scores,
    axes: tuple[Axis, Axis],
    band: Band,
    owners: Indices,
    label_ids: LabelArray,
    scratch: Scratch,
) -> Iterator[Estimate]:
    """What wins in the blocks of a band. `owners` [P]: the group of each phrase; `label_ids` [G]."""
    own = label_ids[owners]  # [P]
    several = bool((np.bincount(owners) > 1).any())
    for size, cells in band.cells:
        for chosen, blocks in _blocks(axes, cells):
            phrases = cells.phrases[:, chosen]  # [K, B]
            control = _controls(axes, band, cells, size, chosen, phrases)
            control *= np.float32(1 / scores.temperature)
            fills = np.arange(len(phrases))[:, None] >= cells.counts[chosen]
            filled = np.flatnonzero(fills.any(1))
            coarse = cells.error[chosen] > _COARSE * scores.temperature
            error = cells.error[chosen] * np.float32(-1 / scores.temperature)
            names, ids = owners[phrases], own[phrases]
            rows, columns = axes
            high, wide = (int(axis.pixels[block].max()) for axis, block in zip(axes, blocks, strict=True))
            down = rows.weights[: size[0], :high].take(blocks[0], 2)
            across = columns.weights[: size[1], :wide].take(blocks[1], 2)
            places = (
                rows.start[blocks[0]] + np.minimum(np.arange(high)[:, None], rows.pixels[blocks[0]] - 1),
                columns.start[blocks[1]] + np.minimum(np.arange(wide)[:, None], columns.pixels[blocks[1]] - 1),
            )
            jumps = rows.jumps[:high, blocks[0]], columns.jumps[:wide, blocks[1]]
            step = max(_CHUNK // (len(phrases) * wide * len(chosen)), 1)
            first_across = size[1] > size[0]
            if first_across:
                partly = _weighted(
                    control[:, :, :, None],
                    across[None],
                    1,
                    scratch.floats("partly", size[0], len(phrases), wide, len(chosen)),
                    scratch,
                )
            for start in range(0, high, step):
                here = down[:, start : start + step]  # [i, h, B]
                shape = (len(phrases), here.shape[1], wide, len(chosen))
                out = scratch.floats("logits", *shape)
                if first_across:
                    logits = _weighted(partly[:, :, None], here[:, :, None], 0, out, scratch)
                else:
                    some = _weighted(
                        control[:, :, :, None],
                        here[:, None],
                        0,
                        scratch.floats("partly", size[1], *shape[:2], shape[3]),
                        scratch,
                    )
                    logits = _weighted(some[:, :, :, None], across, 0, out, scratch)
                for index in filled:
                    logits[index][..., fills[index]] = -np.inf
                if several:
                    _merge(logits, names)
                best = logits.max(0)
                logits -= best
                near = np.greater_equal(logits, error, out=scratch.bytes("near", *shape).view(np.bool_))
                cv2.exp(logits.reshape(-1, shape[3]), dst=logits.reshape(-1, shape[3]))
                share = logits.sum(0)
                np.reciprocal(share, out=share)
                numbers = near.view(np.uint8)
                undecided = np.add.reduce(numbers, 0, np.uint8 if len(phrases) < 256 else np.uint16) != 1
                undecided |= coarse
                undecided |= jumps[0][start : start + step, None] | jumps[1]
                if own.dtype == np.uint8:
                    numbers *= ids[:, None, None]
                    labels = np.add.reduce(numbers, 0, own.dtype)
                else:
                    labels = np.add.reduce(numbers * ids[:, None, None], 0, own.dtype)
                labels *= ~undecided  # what was added up there is no label
                yield Estimate(places[0][start : start + step], places[1], labels, share, undecided)


def _weighted(values: Values, weights: Values, axis: int, out: Values, scratch: Scratch) -> Values:
    """The sum over an axis of values times weights."""
    product = scratch.floats("product", *out.shape)
    number = values.shape[axis]
    for index in range(number):
        where = (slice(None),) * axis + (index,)
        target = product if index else out
        np.multiply(values[where], weights[where], out=target)
        if index:
            out += product
    return out


def _controls(
    axes: tuple[Axis, Axis], band: Band, cells: Cells, size: tuple[int, int], chosen: Indices, phrases: Indices
) -> Values:
    """The control points of blocks less those of their leaders, [i, j, K, B]."""
    rows, columns = axes
    shape = band.controls.shape
    top, left = rows.control[cells.down[chosen]] - band.origin, columns.control[cells.across[chosen]]
    corner = (top * shape[1] + left) * shape[2]  # [B]
    offsets = ((np.arange(size[0])[:, None] * shape[1] + np.arange(size[1])) * shape[2]).reshape(*size, 1, 1)
    flat = band.controls.reshape(-1)
    control: Values = flat.take(offsets + (corner + phrases))
    control -= flat.take(offsets + (corner + cells.leader[chosen]))
    return control


def _blocks(axes: tuple[Axis, Axis], cells: Cells) -> Iterator[tuple[Indices, tuple[Indices, Indices]]]:
    """Some blocks at a time: their cells, and their rows and columns of blocks."""
    first = [np.searchsorted(axis.cell, np.arange(len(axis.control))) for axis in axes]
    number = [np.bincount(axis.cell, minlength=len(axis.control)) for axis in axes]
    tall, wide = number[0][cells.down], number[1][cells.across]
    cell = np.repeat(np.arange(len(cells.down)), tall * wide)
    inside = np.arange(len(cell)) - np.repeat(np.cumsum(tall * wide) - tall * wide, tall * wide)
    down = first[0][cells.down[cell]] + inside // wide[cell]
    across = first[1][cells.across[cell]] + inside % wide[cell]
    step = max(_CHUNK // (len(cells.phrases) * axes[0].weights.shape[1] * axes[1].weights.shape[1]), _LEAST_BLOCKS)
    for start in range(0, len(cell), step):
        part = slice(start, start + step)
        yield cell[part], (down[part], across[part])


def _merge(logits: Values, owners: Indices) -> None:
    """Leave of phrases [K, h, w, B] of one owner [K, B] only the best, in the place of the last of them."""
    for number in range(1, len(owners)):
        same = owners[number] == owners[number - 1]
        if same.any():
            np.maximum(logits[number], logits[number - 1], out=logits[number], where=same)
            np.copyto(logits[number - 1], -np.inf, where=same)
