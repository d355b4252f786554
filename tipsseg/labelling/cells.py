"""Where bilinear maps bend: a grid of pixels cut along each axis into cells, within which interpolated cosines are smooth.

A map that was resized from the patches of a window is linear along an axis between the centres of two patches. So the pixels of an
axis fall into runs: within a run the same windows see all pixels, and all lie between the same two centres of each of these. A run
has up to three control points, the first pixel, the last and (where several windows are merged) one between them.

A cell is one run or several short ones, with the pixels of the image that are resized from it: a block of them is scored at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.windows import interpolation_weights

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

#: Pixels of the image along one side of a block, and control points of a cell along one axis, at most (a single run may have more
#: of neither). Larger blocks have more phrases that matter somewhere in them; smaller ones have more control points for each pixel.
_BLOCK, _MOST_CONTROLS = 16, 7


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of one axis of a grid of pixels.

    Attributes:
        first: [R], the first pixel of each run.
        last: [R], its last.
        windows: Of each run, the starts of the windows that see it.
        bends: Whether scores within a run are not linear along the axis, as several windows are merged.
    """

    first: Indices
    last: Indices
    windows: Sequence[tuple[int, ...]]
    bends: bool

    def points(self, run: int) -> int:
        """How many control points a run has."""
        length = self.last[run] - self.first[run]
        return 1 if length == 0 else 3 if self.bends and length > 1 else 2

    @cached_property
    def starts(self) -> Indices:
        """[R + 1], where the control points of each run begin among those of the axis."""
        return np.concatenate([[0], np.cumsum([self.points(run) for run in range(len(self.first))])])

    @cached_property
    def positions(self) -> tuple[NDArray[np.float64], Indices]:
        """Of each control point its place among the pixels of the axis, and its run."""
        numbers = np.diff(self.starts)
        run = np.repeat(np.arange(len(numbers)), numbers)
        inside = np.arange(len(run)) - self.starts[run]
        steps = (self.last - self.first)[run] / np.maximum(numbers[run] - 1, 1)
        return self.first[run] + inside * steps, run

    @cached_property
    def middles(self) -> Indices:
        """The control points between the first and the last of their runs."""
        return (self.starts[:-1] + 1)[np.diff(self.starts) == 3]


@lru_cache(maxsize=32)
def runs_of(length: int, starts: tuple[int, ...], side: int, patches: int, bends: bool) -> Runs:
    """The runs of an axis.

    Args:
        length: Pixels of the axis.
        starts: The first pixels of the windows, ascending.
        side: Pixels of a window.
        patches: Patches of a window along the axis.
        bends: See Runs.
    """
    window = interpolation_weights(patches, side)
    # Before the first centre a map is constant, and the source before a pixel is the first patch as it is behind that centre.
    between = window.low + ((window.low > 0) | (window.weight > 0))
    changes = np.zeros(length, bool)
    changes[0] = True
    for start in starts:
        changes[start : start + side] |= np.diff(between, prepend=-1) != 0
        changes[start + side : start + side + 1] = True
    first = np.flatnonzero(changes)
    last = np.append(first[1:], length) - 1
    seen = [tuple(start for start in starts if start <= pixel < start + side) for pixel in first]
    return Runs(first, last, seen, bends)


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """How the pixels of one axis of the image come from the control points of cells.

    Attributes:
        control: [C], the first control point of each cell, among those of the axis.
        controls: [C], how many it has. A pixel of a cell is a mean of these, with weights that are not negative.
        cell: [B], the cell of each block.
        start: [B], its first pixel.
        pixels: [B], how many pixels it has.
        weights: [most controls, most pixels, B] float32; behind the last pixel of a block its weights go on.
        jumps: [most pixels, B], whether a pixel lies between pixels that other windows see.
        lengths: [C] float32, pixels of the grid from the first to the last of the longest run of a cell.
    """

    control: Indices
    controls: Indices
    cell: Indices
    start: Indices
    pixels: Indices
    weights: Floats
    jumps: NDArray[np.bool_]
    lengths: Floats
    runs: tuple[tuple[int, int], ...]


@lru_cache(maxsize=32)
def make_axis(runs: Runs, length: int) -> Axis:
    """The cells of an axis of `length` pixels of the image, which are resized from a grid with these runs."""
    size = int(runs.last[-1]) + 1
    weights = interpolation_weights(size, length)
    run_of = np.repeat(np.arange(len(runs.first)), runs.last - runs.first + 1)
    own = run_of[weights.high]  # [length], ascending: the run of the pixel behind
    points = runs.starts
    present, counts = np.unique(own, return_counts=True)
    cells = list(_merged(present.tolist(), counts.tolist(), points))
    single = _single(runs, run_of, points)  # by pixel of the grid: (point, weight) of up to three points
    control = np.array([max(points[a] - 1, 0) for a, _ in cells])
    controls = np.array([points[b + 1] for _, b in cells]) - control
    cell_of_run = np.full(len(runs.first), -1)
    for number, (a, b) in enumerate(cells):
        cell_of_run[a : b + 1] = number
    cell = cell_of_run[own]
    dense = np.zeros((length, int(controls.max())), np.float32)
    rows = np.arange(length)
    for source, share in ((weights.low, 1 - weights.weight), (weights.high, weights.weight)):
        for point, weight in single:
            place = point[source] - control[cell]
            value = weight[source] * share
            inside = value != 0
            np.add.at(dense, (rows[inside], place[inside]), value[inside])
    blocks = list(_blocks(cell))
    most = max(stop - start for start, stop in blocks)
    index = np.array([[min(start + i, stop - 1) for i in range(most)] for start, stop in blocks])
    starts = np.array([start for start, _ in blocks])
    pixels = np.array([stop - start for start, stop in blocks])
    known = np.array([hash(seen) for seen in runs.windows])
    before, behind = run_of[weights.low], run_of[weights.high]
    jumps = (known[before] != known[behind]) & (weights.weight > 0)
    longest = np.array([(runs.last[a : b + 1] - runs.first[a : b + 1]).max() for a, b in cells], np.float32)
    return Axis(
        control,
        controls,
        cell[starts],
        starts,
        pixels,
        dense[index].transpose(2, 1, 0).copy(),
        jumps[index].T.copy(),
        longest,
        tuple(cells),
    )


@lru_cache(maxsize=32)
def patch_runs(patches: int) -> Runs:
    """The runs of an axis that is not resized to pixels: each patch is one."""
    each = np.arange(patches)
    return Runs(each, each, [(0,)] * patches, False)


def _merged(present: list[int], counts: list[int], points: Indices) -> Iterator[tuple[int, int]]:
    """First and last run of each cell: runs that have pixels of the image, short ones with the next."""
    at = 0
    while at < len(present):
        first, pixels, stop = present[at], counts[at], at + 1
        while (
            stop < len(present)
            and pixels + counts[stop] <= _BLOCK
            and points[present[stop] + 1] - points[first] + 1 <= _MOST_CONTROLS
        ):
            pixels += counts[stop]
            stop += 1
        yield first, present[stop - 1]
        at = stop


def _single(runs: Runs, run_of: Indices, points: Indices) -> list[tuple[Indices, Floats]]:
    """Control points, and the weights of these, that a pixel of the grid is a mean of: three of each, [size]."""
    length = (runs.last - runs.first)[run_of]
    number = np.diff(points)[run_of]
    first = points[:-1][run_of]
    along = (np.arange(len(run_of)) - runs.first[run_of]) / np.maximum(length, 1)
    # Bernstein's polynomials: of the second degree where a run has three control points, else of the first.
    quadratic = number == 3
    zero = np.zeros(len(run_of))
    low = np.where(quadratic, (1 - along) ** 2, 1 - along)
    middle = np.where(quadratic, 2 * along * (1 - along), np.where(number == 2, along, zero))
    high = np.where(quadratic, along**2, zero)
    return [
        (first, low.astype(np.float32)),
        (first + np.minimum(1, number - 1), middle.astype(np.float32)),
        (first + number - 1, high.astype(np.float32)),
    ]


def _blocks(cell: Indices) -> Iterator[tuple[int, int]]:
    """First pixel, and the one behind the last, of blocks that lie within a cell."""
    edges = np.flatnonzero(np.diff(cell, prepend=-1, append=-1))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        number = -(-(stop - start) // _BLOCK)
        cuts = [start + (stop - start) * each // number for each in range(number + 1)]
        yield from pairwise(cuts)
