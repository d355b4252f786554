"""Find regions in label ids, and encode them as run-length codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.regions.shapes import Shape
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray

#: Pixels per piece: intermediate arrays take about 20 bytes per pixel.
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class RegionRuns:
    """Vertical runs of pixels, in column-major order like COCO's.

    Attributes:
        column: [R] int32, column of each run.
        top: [R] int32, first row.
        stop: [R] int32, row after the last.
    """

    column: NDArray[np.int32]
    top: NDArray[np.int32]
    stop: NDArray[np.int32]

    def __getitem__(self, which: slice | NDArray[np.intp] | NDArray[np.bool_]) -> RegionRuns:
        return RegionRuns(self.column[which], self.top[which], self.stop[which])

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels of one class: a connected component, or all pixels of the class.

    They are stored as runs, because a mask per region could be as large as the image.

    Attributes:
        class_id: Label id of the class, 1..N.
        area: Number of pixels.
        box: (y, x, h, w) in pixels, the bounding box.
        runs: The pixels.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    runs: RegionRuns

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask of the region within its box, [h, w] bool. Computed on every access."""
        y, x, h, w = self.box
        edges = np.zeros(w * h + 1, np.int8)
        base = (self.runs.column.astype(np.int64) - x) * h - y
        edges[base + self.runs.top] += 1
        edges[base + self.runs.stop] -= 1
        inside: NDArray[np.bool_] = np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_).reshape(w, h).T
        return np.ascontiguousarray(inside)

    def shape(self) -> Shape:
        """Return the pixels as a mask with its place."""
        return Shape(self.class_id, *self.box[:2], self.mask)

    def contains(self, y: int, x: int) -> bool:
        """Return True if a pixel is in the region."""
        top, left, height, width = self.box
        if not (top <= y < top + height and left <= x < left + width):
            return False
        return bool(((self.runs.column == x) & (self.runs.top <= y) & (self.runs.stop > y)).any())


def count_labels(labels: LabelArray) -> NDArray[np.int64]:
    """Count the pixels of each label id in `labels` [H, W]: 256 counts for uint8, 65536 for uint16."""
    ids = int(np.iinfo(labels.dtype).max) + 1
    counts = np.zeros(ids, np.int64)
    flat = labels.reshape(-1)
    # Count in pieces, because bincount makes a 64-bit copy, eight times the size of a uint8 map.
    for start in range(0, flat.size, _PIECE):
        counts += np.bincount(flat[start : start + _PIECE], minlength=ids)
    return counts


def components(
    labels: LabelArray, number_of_classes: int, min_area: int = 1, instances: NDArray[np.int32] | None = None
) -> list[Region]:
    """Find the 8-connected components of the classes 1..N in `labels` [H, W], uint8 or uint16.

    With `instances` [H, W], the pixels of a class in one instance form a region, connected or not; instance 0 is in none.
    Omit background, ignored pixels, and regions with fewer than `min_area` pixels. Sort by class id, top row, left column, and
    the leftmost pixel of the top row, which is unique.
    """
    runs, class_ids = _runs(labels, number_of_classes, instances)
    if instances is None:
        return _regions(runs, class_ids, _number_components(runs, class_ids, labels.shape[0]), min_area)
    owners = instances[runs.top, runs.column]
    numbers = owners.astype(np.intp) * (number_of_classes + 1) + class_ids
    free = np.flatnonzero(owners == 0)
    numbers[free] = -1 - _number_components(runs[free], class_ids[free], labels.shape[0])
    return _regions(runs, class_ids, numbers, min_area)


def every_region(
    labels: LabelArray, number_of_classes: int, instances: NDArray[np.int32] | None = None
) -> tuple[list[Region], int]:
    """Return a list of regions of `labels` [H, W], and how many of them, from the first, are objects.

    After the objects (see `components`) come the connected regions of background, with class id 1, and of ignored pixels, with 2.
    """
    objects = components(labels, number_of_classes, instances=instances)
    others = np.where(labels == BACKGROUND, 1, np.where(labels > number_of_classes, 2, 0)).astype(np.uint8)
    return [*objects, *components(others, 2)], len(objects)


def whole_classes(labels: LabelArray, number_of_classes: int, min_area: int = 1) -> list[Region]:
    """Find all pixels of each class 1..N in `labels` [H, W] as one region. Omit classes with fewer than `min_area` pixels."""
    runs, class_ids = _runs(labels, number_of_classes)
    return _regions(runs, class_ids, class_ids.astype(np.intp), min_area)


def _runs(
    labels: LabelArray, number_of_classes: int, instances: NDArray[np.int32] | None = None
) -> tuple[RegionRuns, LabelArray]:
    """Return the vertical runs of the classes 1..N, and their class ids. A run has one class and one instance."""
    height, width = labels.shape
    parts: list[tuple[RegionRuns, LabelArray]] = []
    step = max(_PIECE // height, 1)
    for left in range(0, width, step):
        piece = np.ascontiguousarray(labels[:, left : left + step].T)  # [columns, H]
        starts = np.ones(piece.shape, np.bool_)
        np.not_equal(piece[:, 1:], piece[:, :-1], out=starts[:, 1:])
        if instances is not None:
            owners = instances[:, left : left + step].T
            starts[:, 1:] |= owners[:, 1:] != owners[:, :-1]
        first = np.flatnonzero(starts)
        length = np.diff(first, append=piece.size)
        ids = cast(LabelArray, piece.reshape(-1)[first])
        is_class = (ids >= 1) & (ids <= number_of_classes)
        column, top = np.divmod(first[is_class], height)
        runs = RegionRuns(
            (column + left).astype(np.int32), top.astype(np.int32), (top + length[is_class]).astype(np.int32)
        )
        parts.append((runs, ids[is_class]))
    return _concatenate([runs for runs, _ in parts]), cast(LabelArray, np.concatenate([ids for _, ids in parts]))


def _concatenate(parts: Sequence[RegionRuns]) -> RegionRuns:
    if not parts:
        return RegionRuns(*np.empty((3, 0), np.int32))
    return RegionRuns(*(np.concatenate([getattr(runs, name) for runs in parts]) for name in ("column", "top", "stop")))


def _number_components(runs: RegionRuns, class_ids: LabelArray, height: int) -> NDArray[np.intp]:
    """Return a number for each run, equal for runs of the same 8-connected component."""
    # With a pitch of two extra rows, positions in column-major order increase from run to run and never touch across columns.
    column, pitch = runs.column.astype(np.int64), height + 2
    next_column = (column + 1) * pitch
    first = np.searchsorted(column * pitch + runs.stop, next_column + runs.top, "left")
    last = np.searchsorted(column * pitch + runs.top, next_column + runs.stop, "right")
    count = np.maximum(last - first, 0)
    left = np.repeat(np.arange(len(runs)), count)
    right = np.arange(len(left)) - np.repeat(np.cumsum(count) - count - first, count)
    same_class = class_ids[left] == class_ids[right]
    return lowest_connected(len(runs), left[same_class], right[same_class])


def lowest_connected(count: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the lowest node in the component of each node of a graph with `count` nodes and edges (first[i], second[i])."""
    lowest = np.arange(count)
    while True:
        roots, other_roots = lowest[first], lowest[second]
        differ = roots != other_roots
        if not differ.any():
            return lowest
        first, second, roots, other_roots = first[differ], second[differ], roots[differ], other_roots[differ]
        np.minimum.at(lowest, np.maximum(roots, other_roots), np.minimum(roots, other_roots))
        while True:  # follow the links to the roots
            deeper = lowest[lowest]
            if (deeper == lowest).all():
                break
            lowest = deeper


def _regions(runs: RegionRuns, class_ids: LabelArray, numbers: NDArray[np.intp], min_area: int) -> list[Region]:
    order = np.argsort(numbers, kind="stable")
    runs, class_ids = runs[order], class_ids[order]
    if not len(runs):
        return []
    firsts = np.flatnonzero(np.diff(numbers[order], prepend=numbers.min() - 1))
    areas = np.add.reduceat(runs.stop - runs.top, firsts, dtype=np.int64)
    tops, stops = np.minimum.reduceat(runs.top, firsts), np.maximum.reduceat(runs.stop, firsts)
    bounds = [*firsts.tolist(), len(runs)]
    keyed = []
    for index in np.flatnonzero(areas >= min_area).tolist():
        own = runs[bounds[index] : bounds[index + 1]]
        y, x = int(tops[index]), int(own.column[0])
        box = (y, x, int(stops[index]) - y, int(own.column[-1]) - x + 1)
        class_id = int(class_ids[bounds[index]])
        # The leftmost pixel of the top row is the start of the first run that starts in that row.
        leftmost = int(own.column[(own.top == y).argmax()])
        keyed.append(((class_id, y, x, leftmost), Region(class_id, int(areas[index]), box, own)))
    return [region for _, region in sorted(keyed, key=lambda pair: pair[0])]


def region_means(regions: Sequence[Region], values: ConfidenceArray) -> NDArray[np.float64]:
    """Return the mean of `values` [H, W] over each region, [number of regions]. The regions must not overlap."""
    height, width = values.shape
    areas = np.array([region.area for region in regions], np.float64)
    sums = np.zeros(len(regions))
    owner = np.repeat(np.arange(len(regions)), [len(region.runs) for region in regions])
    runs = _concatenate([region.runs for region in regions])
    # Sort by pixel, because `reduceat` also sums between consecutive edges.
    order = np.argsort(runs.column.astype(np.int64) * height + runs.top, kind="stable")
    runs, owner = runs[order], owner[order]
    step = max(_PIECE // height, 1)
    for left in range(0, width, step):
        start, stop = np.searchsorted(runs.column, [left, left + step])
        if start == stop:
            continue
        columns = min(step, width - left)
        piece = np.empty(columns * height + 1)
        piece[-1] = 0  # edges must be valid indices
        piece[:-1].reshape(columns, height)[:] = values[:, left : left + columns].T
        edges = _edges(runs[start:stop], height)
        edges -= left * height
        # Every second sum is over the pixels between two runs.
        sums += np.bincount(owner[start:stop], np.add.reduceat(piece, edges)[::2], len(regions))
    return sums / areas


def _edges(runs: RegionRuns, height: int) -> NDArray[np.int64]:
    """Return the start and the end of each run as column-major indices, [2 R], for columns of `height` pixels."""
    base = runs.column.astype(np.int64) * height
    edges = np.empty(2 * len(runs), np.int64)
    np.add(base, runs.top, out=edges[::2])
    np.add(base, runs.stop, out=edges[1::2])
    return edges


def encode_regions(regions: Sequence[Region], size: tuple[int, int]) -> list[dict[str, object]]:
    """Encode regions of an image of `size` (height, width) as COCO's compressed run-length codes of the whole image.

    The work is in proportion to the number of runs, which matters for thousands of regions.
    """
    height, width = size
    codes = []
    for region in regions:
        edges = _edges(region.runs, height)
        # A run may end at the bottom of a column and continue at the top of the next: drop both edges.
        kept = np.ones(len(edges), np.bool_)
        kept[1:-1:2] = kept[2::2] = edges[1:-1:2] != edges[2::2]
        counts = np.diff(edges[kept], prepend=0, append=height * width)
        codes.append({"size": [height, width], "counts": counts if counts[-1] else counts[:-1]})
    encoded = coco_mask.frPyObjects(codes, height, width) if codes else []
    return [{"size": [height, width], "counts": code["counts"].decode("ascii")} for code in encoded]
