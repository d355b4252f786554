"""Find regions in label ids, and code them as runs. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.types import ConfidenceArray, LabelArray

#: Pixels that are looked at at once: what is made of them takes some 20 bytes each.
_PIECE = 1 << 20


class Rle(TypedDict):
    """A mask as COCO's compressed run-length code: `size` [h, w] and `counts`, ASCII text."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Pixels in runs down the columns, one behind the other as COCO counts pixels: columns from the left, each from its top.

    Attributes:
        column: [R] int32, the column of each run.
        top: [R] int32, its first row.
        stop: [R] int32, the row after its last one.
    """

    column: NDArray[np.int32]
    top: NDArray[np.int32]
    stop: NDArray[np.int32]

    def __getitem__(self, which: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Runs:
        return Runs(self.column[which], self.top[which], self.stop[which])

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels of one class: a connected component, or all pixels of the class.

    They are kept as runs: a mask for each region would be as large as the image.

    Attributes:
        class_id: The label id of the class, 1..N.
        area: The number of pixels.
        box: (y, x, h, w) in pixels, the smallest box around the region.
        runs: The pixels.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    runs: Runs

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[h, w] bool, which pixels of the box belong to the region; made again each time."""
        y, x, h, w = self.box
        edges = np.zeros(w * h + 1, np.int8)
        at = (self.runs.column.astype(np.int64) - x) * h - y
        edges[at + self.runs.top] += 1
        edges[at + self.runs.stop] -= 1
        inside: NDArray[np.bool_] = np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_).reshape(w, h).T
        return np.ascontiguousarray(inside)


def count_labels(labels: LabelArray) -> NDArray[np.int64]:
    """Count the pixels of each label id in `labels` [H, W]: 256 counts for uint8, 65536 for uint16."""
    ids = int(np.iinfo(labels.dtype).max) + 1
    counts = np.zeros(ids, np.int64)
    flat = labels.reshape(-1)
    # By pieces: numpy's count makes 64-bit copies, eight times a large map.
    for start in range(0, flat.size, _PIECE):
        counts += np.bincount(flat[start : start + _PIECE], minlength=ids)
    return counts


def components(labels: LabelArray, number_of_classes: int, min_area: int = 1) -> list[Region]:
    """Find the 8-connected components of the classes 1..N in `labels` [H, W], uint8 or uint16.

    Components of fewer than `min_area` pixels are left out; background and ignored pixels belong to none. Sorted by
    class id, then top row, then left column (then by the leftmost pixel of the top row, which no two share).
    """
    runs, class_ids = _runs(labels, number_of_classes)
    return _regions(runs, class_ids, _connected(runs, class_ids, labels.shape[0]), min_area)


def whole_classes(labels: LabelArray, number_of_classes: int, min_area: int = 1) -> list[Region]:
    """Gather all pixels of each class 1..N in `labels` [H, W] into one region, if there are at least `min_area`; by class id."""
    runs, class_ids = _runs(labels, number_of_classes)
    return _regions(runs, class_ids, class_ids.astype(np.intp), min_area)


def _runs(labels: LabelArray, number_of_classes: int) -> tuple[Runs, LabelArray]:
    height, width = labels.shape
    found: list[tuple[Runs, LabelArray]] = []
    step = max(_PIECE // height, 1)
    for left in range(0, width, step):
        piece = np.ascontiguousarray(labels[:, left : left + step].T)  # [columns, H]
        starts = np.ones(piece.shape, np.bool_)
        np.not_equal(piece[:, 1:], piece[:, :-1], out=starts[:, 1:])
        first = np.flatnonzero(starts)
        length = np.diff(first, append=piece.size)
        ids = cast(LabelArray, piece.reshape(-1)[first])
        wanted = (ids >= 1) & (ids <= number_of_classes)
        column, top = np.divmod(first[wanted], height)
        runs = Runs((column + left).astype(np.int32), top.astype(np.int32), (top + length[wanted]).astype(np.int32))
        found.append((runs, ids[wanted]))
    return _together([runs for runs, _ in found]), cast(LabelArray, np.concatenate([ids for _, ids in found]))


def _together(parts: Sequence[Runs]) -> Runs:
    if not parts:
        return Runs(*np.empty((3, 0), np.int32))
    return Runs(*(np.concatenate([getattr(runs, name) for runs in parts]) for name in ("column", "top", "stop")))


def _connected(runs: Runs, class_ids: LabelArray, height: int) -> NDArray[np.intp]:
    """Number the runs: those of one class that touch, also at a corner, directly or by others, have the same number."""
    # Down the columns, with two rows between them, all runs have places that only grow.
    column, pitch = runs.column.astype(np.int64), height + 2
    next_column = (column + 1) * pitch
    first = np.searchsorted(column * pitch + runs.stop, next_column + runs.top, "left")
    last = np.searchsorted(column * pitch + runs.top, next_column + runs.stop, "right")
    count = np.maximum(last - first, 0)
    here = np.repeat(np.arange(len(runs)), count)
    there = np.arange(len(here)) - np.repeat(np.cumsum(count) - count - first, count)
    alike = class_ids[here] == class_ids[there]
    return _joined(len(runs), here[alike], there[alike])


def _joined(number: int, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the lowest number that each number is joined with, directly or by others; `one` and `other` are the joints."""
    lowest = np.arange(number)
    while True:
        roots, other_roots = lowest[one], lowest[other]
        apart = roots != other_roots
        if not apart.any():
            return lowest
        one, other, roots, other_roots = one[apart], other[apart], roots[apart], other_roots[apart]
        np.minimum.at(lowest, np.maximum(roots, other_roots), np.minimum(roots, other_roots))
        while True:  # all the way down
            deeper = lowest[lowest]
            if (deeper == lowest).all():
                break
            lowest = deeper


def _regions(runs: Runs, class_ids: LabelArray, numbers: NDArray[np.intp], min_area: int) -> list[Region]:
    order = np.argsort(numbers, kind="stable")
    runs, class_ids = runs[order], class_ids[order]
    firsts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    if not len(firsts):
        return []
    areas = np.add.reduceat(runs.stop - runs.top, firsts, dtype=np.int64)
    tops, stops = np.minimum.reduceat(runs.top, firsts), np.maximum.reduceat(runs.stop, firsts)
    bounds = [*firsts.tolist(), len(runs)]
    keyed = []
    for index in np.flatnonzero(areas >= min_area).tolist():
        own = runs[bounds[index] : bounds[index + 1]]
        y, x = int(tops[index]), int(own.column[0])
        box = (y, x, int(stops[index]) - y, int(own.column[-1]) - x + 1)
        class_id = int(class_ids[bounds[index]])
        # The leftmost pixel of the top row begins the first run that begins there.
        leftmost = int(own.column[(own.top == y).argmax()])
        keyed.append(((class_id, y, x, leftmost), Region(class_id, int(areas[index]), box, own)))
    return [region for _, region in sorted(keyed, key=lambda pair: pair[0])]


def means_over(regions: Sequence[Region], values: ConfidenceArray) -> NDArray[np.float64]:
    """Return the mean of `values` [H, W] over each of the regions, which share no pixel: [number of regions]."""
    height, width = values.shape
    areas = np.array([region.area for region in regions], np.float64)
    sums = np.zeros(len(regions))
    owner = np.repeat(np.arange(len(regions)), [len(region.runs) for region in regions])
    runs = _together([region.runs for region in regions])
    # As the pixels are: of what is between two runs a sum is made too.
    order = np.argsort(runs.column.astype(np.int64) * height + runs.top, kind="stable")
    runs, owner = runs[order], owner[order]
    step = max(_PIECE // height, 1)
    for left in range(0, width, step):
        start, stop = np.searchsorted(runs.column, [left, left + step])
        if start == stop:
            continue
        columns = min(step, width - left)
        piece = np.empty(columns * height + 1)
        piece[-1] = 0  # as an edge must lie in the array
        piece[:-1].reshape(columns, height)[:] = values[:, left : left + columns].T
        edges = _edges(runs[start:stop], height)
        edges -= left * height
        # Every second sum is of what is between two runs.
        sums += np.bincount(owner[start:stop], np.add.reduceat(piece, edges)[::2], len(regions))
    return sums / areas


def _edges(runs: Runs, height: int) -> NDArray[np.int64]:
    """Return where each run begins and ends, [2 R], counted down columns of `height` pixels."""
    base = runs.column.astype(np.int64) * height
    edges = np.empty(2 * len(runs), np.int64)
    np.add(base, runs.top, out=edges[::2])
    np.add(base, runs.stop, out=edges[1::2])
    return edges


def encode_regions(regions: Sequence[Region], size: tuple[int, int]) -> list[Rle]:
    """Encode regions in an image of `size` (height, width) as compressed run-length codes.

    Each code is that of the whole mask, but the work goes with the regions' runs and not with the image, which matters where a map
    has thousands of regions. All of them are coded at once, as most have few runs.
    """
    if not regions:
        return []
    height, width = size
    owner = np.repeat(np.arange(len(regions)), [len(region.runs) for region in regions])
    edges = _edges(_together([region.runs for region in regions]), height)
    # A run that ends at the bottom of the image goes on at the top of the next column: drop both edges.
    apart = (edges[1:-1:2] != edges[2::2]) | (owner[1:] != owner[:-1])
    kept = np.ones(len(edges), np.bool_)
    kept[1:-1:2] = kept[2::2] = apart
    edges, owner = edges[kept], np.repeat(owner, 2)[kept]
    # What each edge is behind the one before, and the end of the image behind the last.
    stops = np.cumsum(np.bincount(owner, minlength=len(regions)))
    counts = np.insert(np.diff(edges, prepend=0), stops, height * width - edges[stops - 1])
    firsts = np.concatenate([[0], stops[:-1]]) + np.arange(len(regions))
    counts[firsts] = edges[np.concatenate([[0], stops[:-1]])]
    number = np.diff(firsts, append=len(counts))
    place = np.arange(len(counts)) - np.repeat(firsts, number)
    counts[3:] -= np.where(place[3:] > 2, counts[1:-2], 0)
    # An end of the image that is no run of its own is not coded.
    coded = np.ones(len(counts), np.bool_)
    coded[firsts + number - 1] = edges[stops - 1] < height * width
    texts, lengths = _text(counts[coded])
    ends = np.cumsum(np.bincount(np.repeat(np.arange(len(regions)), number)[coded], lengths)).astype(np.int64).tolist()
    return [{"size": [height, width], "counts": texts[start:end]} for start, end in zip([0, *ends], ends, strict=False)]


def _text(numbers: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """Write numbers as COCO does, five bits in a letter, the lowest first; return how many letters each has, too."""
    letters: list[NDArray[np.uint8]] = []
    more = np.ones(len(numbers), np.bool_)
    lengths = np.zeros(len(numbers), np.int64)
    while more.any():
        lengths += more
        low = numbers & 31
        numbers = numbers >> 5
        # The fifth bit of the last letter is the sign of all.
        more = more & (numbers != np.where(low & 16, -1, 0))
        letters.append((low + 48 + 32 * more).astype(np.uint8))
    written = np.arange(len(letters)) < lengths[:, None]
    return np.stack(letters, 1)[written].tobytes().decode("ascii"), lengths
