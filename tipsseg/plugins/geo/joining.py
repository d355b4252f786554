"""Trace the objects of rasters block by block, and join those that cross the borders of blocks.

An object that touches no border to another block is whole: it leaves with its block. The outlines of the others wait. When a row of
blocks ends, the pieces that touch each other are joined, and an object that no block below continues leaves. So memory has the
outlines of the objects along one row of blocks, however many rows there are.

Outlines run along the edges of pixels. Those that two pieces of an object have in common, in opposite directions, are removed; what
is left is traced again, with corners alone. The result is what `rasterio.features.shapes` finds in all labels at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import lowest_connected
from tipsseg.regions.objects import LabelledObject, ancestors, number_pixels
from tipsseg.types import BlockPlace, LabelClass

#: Rings of a connected polygon, the outer one first: corners [K, 2] int32 as (x, y) in pixels, of which the last is the first.
#: The polygon is to the left of its rings, seen along them with y downwards.
Rings = list[NDArray[np.int32]]


@dataclass(slots=True)
class TracedObject:
    """An object with its outline.

    Attributes:
        class_id: The label id of its class.
        area: Its pixels.
        score: Its mean confidence, or NaN.
        polygons: Its connected polygons.
    """

    class_id: int
    area: int
    score: float
    polygons: list[Rings] = field(default_factory=list)


class ObjectJoiner:
    """Traces the objects of blocks, from top to bottom, then from left to right."""

    def __init__(self, size: tuple[int, int], classes: Sequence[LabelClass], *, by_class: bool) -> None:
        """Set up for a raster of `size` (height, width). With `by_class`, all pixels of a class are one object."""
        self._size, self._by_class = size, by_class
        self._depths = [len(chain) for chain in ancestors(classes)]
        self._borders: tuple[set[int], set[int]] = set(), set()  # x and y of the borders of blocks
        # The objects that wait, from 1, and the numbers of those that touch, above and below.
        self._waiting, self._touching = [TracedObject(0, 0, 0.0)], list[NDArray[np.intp]]()
        # By depth of wholes and parts, the numbers along the row of blocks above, this row, and the block to the left.
        self._above, self._below = ({depth: self._blank() for depth in self._depths} for _ in range(2))
        self._left = dict[int, NDArray[np.intp]]()

    def _blank(self) -> NDArray[np.intp]:
        return np.zeros(self._size[1] + 2, np.intp)  # one more pixel on both sides

    def add(self, place: BlockPlace, objects: Iterable[LabelledObject]) -> Iterator[TracedObject]:
        """Yield the objects that end with a block, of whatever area: wholes, then their parts, and so on."""
        self._borders[0].add(place.left)
        self._borders[1].add(place.top)
        bottom, right = place.top + place.height, place.left + place.width

        def depth(each: LabelledObject) -> int:
            return self._depths[each.region.class_id - 1]

        levels = {level: list(own) for level, own in groupby(sorted(objects, key=depth), depth)}
        for level in self._above:
            own = levels.get(level, [])
            numbers = number_pixels(enumerate((each.region for each in own), start=1), (place.height, place.width))
            polygons = _trace(numbers, place) if own else {}
            waiting = np.zeros(len(own) + 1, np.intp)
            for number, each in enumerate(own, start=1):
                traced = TracedObject(each.region.class_id, each.region.area, each.score, polygons[number])
                y, x, h, w = each.region.box
                if self._by_class or (
                    (y == 0 and place.top)
                    or (x == 0 and place.left)
                    or (y + h == place.height and bottom < self._size[0])
                    or (x + w == place.width and right < self._size[1])
                ):
                    waiting[number] = len(self._waiting)
                    self._waiting.append(traced)
                else:
                    yield traced
            self._connect(level, place, waiting, numbers)
        if right == self._size[1]:
            yield from self._end_row(is_last=bottom == self._size[0])

    def _connect(self, level: int, place: BlockPlace, waiting: NDArray[np.intp], numbers: NDArray[np.uint32]) -> None:
        """Note which objects of a block [h, w] touch one above or to the left, also at a corner; `waiting` has their numbers."""
        top, bottom, left, right = (waiting[side] for side in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]))
        self._touch(self._above[level][place.left : place.left + place.width + 2], top)
        if place.left:
            self._touch(self._left[level], left)
        self._left[level] = np.pad(right, 1)
        self._below[level][place.left + 1 : place.left + place.width + 1] = bottom

    def _touch(self, known: NDArray[np.intp], numbers: NDArray[np.intp]) -> None:
        """Note which objects touch along a border: `numbers` [n], and those on its other side [n + 2]."""
        beside = np.stack([known[:-2], known[1:-1], known[2:], numbers, numbers, numbers]).reshape(2, -1)
        self._touching.append(np.unique(beside[:, (beside > 0).all(0)], axis=1))

    def _end_row(self, *, is_last: bool) -> Iterator[TracedObject]:
        """Join the objects that touch each other, and yield those that no block below continues."""
        classes = np.array([each.class_id for each in self._waiting])
        if self._by_class:
            _, first = np.unique(classes, return_index=True)
            lowest = first[np.unique(classes, return_inverse=True)[1]]
        else:
            one, other = np.concatenate([np.zeros((2, 0), np.intp), *self._touching], axis=1)
            same = classes[one] == classes[other]
            lowest = lowest_connected(len(classes), one[same], other[same])
        joined = dict[int, list[TracedObject]]()
        for number, each in zip(lowest[1:].tolist(), self._waiting[1:], strict=True):
            joined.setdefault(number, []).append(each)
        goes_on = set(joined) if self._by_class else {int(each) for row in self._below.values() for each in lowest[row]}
        goes_on = set() if is_last else goes_on
        moved, self._waiting, self._touching = np.zeros(len(classes), np.intp), self._waiting[:1], []
        for number in sorted(joined, key=lambda number: self._depths[joined[number][0].class_id - 1]):
            each = _join(joined[number])
            if number in goes_on:
                moved[number] = len(self._waiting)
                self._waiting.append(each)
            else:
                yield TracedObject(each.class_id, each.area, each.score, self._outline(each.polygons))
        for level, row in self._below.items():
            self._above[level], self._below[level] = moved[lowest[row]], self._blank()

    def _outline(self, polygons: Sequence[Rings]) -> list[Rings]:
        """Return the polygons of an object from the polygons of its pieces, which share edges along the borders of blocks."""
        rings = [ring.astype(np.int64) for polygon in polygons for ring in polygon]
        start, stop = np.concatenate([ring[:-1] for ring in rings]), np.concatenate([ring[1:] for ring in rings])
        owner = np.repeat(np.arange(len(polygons)), [sum(len(ring) - 1 for ring in polygon) for polygon in polygons])
        # Along borders, an edge for each pixel.
        along_x = start[:, 1] == stop[:, 1]
        is_shared = np.where(
            along_x, np.isin(start[:, 1], [*self._borders[1]]), np.isin(start[:, 0], [*self._borders[0]])
        )
        count = np.where(is_shared, np.abs(stop - start).sum(1), 1)
        index = np.repeat(np.arange(len(start)), count)
        step = np.sign(stop - start)[index]
        begin = start[index] + step * (np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count))[:, None]
        end, owner = np.where(is_shared[index, None], begin + step, stop[index]), owner[index]
        pitch = self._size[1] + 1
        shared = np.flatnonzero(is_shared[index])
        sides = (np.minimum(begin, end)[shared] @ (1, pitch)) * 2 + along_x[index][shared]
        order = np.argsort(sides, kind="stable")
        twins = np.flatnonzero(np.diff(sides[order]) == 0)
        one, other = shared[order[twins]], shared[order[twins + 1]]
        group = lowest_connected(len(polygons), owner[one], owner[other])[owner]
        kept = np.ones(len(begin), np.bool_)
        kept[one] = kept[other] = False
        return _rings(begin[kept], end[kept], step[kept], group[kept], pitch)


def _join(pieces: Sequence[TracedObject]) -> TracedObject:
    area = sum(each.area for each in pieces)
    score = sum(each.score * each.area for each in pieces) / area if len(pieces) > 1 else pieces[0].score
    polygons = [polygon for each in pieces for polygon in each.polygons]
    return TracedObject(pieces[0].class_id, area, score, polygons)


def _trace(numbers: NDArray[np.uint32], place: BlockPlace) -> dict[int, list[Rings]]:
    """Return the polygons of each number in a block [h, w], from 1, in pixels of the raster."""
    from rasterio.features import shapes

    polygons, signed = defaultdict(list), numbers.astype(np.int32)
    corner = np.array((place.left, place.top), np.int32)
    for geometry, number in shapes(signed, mask=signed > 0, connectivity=4):
        polygons[int(number)].append([np.array(ring, np.int32) + corner for ring in geometry["coordinates"]])
    return polygons


def _rings(
    begin: NDArray[np.int64], end: NDArray[np.int64], step: NDArray[np.int64], group: NDArray[np.intp], pitch: int
) -> list[Rings]:
    """Return the polygons whose edges run from `begin` to `end` [E, 2] in the directions `step`; each is a `group` [E]."""
    points, ids = np.unique(np.concatenate([begin, end]) @ (1, pitch), return_inverse=True)
    starts, ends = np.split(ids, 2)
    starts, ends = group * len(points) + starts, group * len(points) + ends
    order = np.argsort(starts, kind="stable")
    at = np.searchsorted(starts[order], ends)
    following = order[at]
    # Where a polygon meets itself at a corner, two edges follow: the right one, so that its rings touch and do not cross.
    turn = step[:, 0] * step[following, 1] - step[:, 1] * step[following, 0]
    is_left = (turn < 0) & (np.append(starts[order], -1)[at + 1] == ends)
    following[is_left] = order[at[is_left] + 1]
    is_corner = np.zeros(len(begin), np.bool_)
    is_corner[following] = (step != step[following]).any(1)
    left, after, corners = np.ones(len(begin), np.bool_).tolist(), following.tolist(), is_corner.tolist()
    polygons = defaultdict[int, list[NDArray[np.int32]]](list)
    for first, number in enumerate(group.tolist()):
        edges, edge = list[int](), first
        while left[edge]:
            left[edge] = False
            if corners[edge]:
                edges.append(edge)
            edge = after[edge]
        if edges:
            ring = begin[edges].astype(np.int32)
            ring = np.roll(
                ring, -np.lexsort(ring.T)[0], axis=0
            )  # from the leftmost corner of the top row, as GDAL does
            polygons[number].append(np.concatenate([ring, ring[:1]]))

    def place(ring: NDArray[np.int32]) -> tuple[bool, int, int]:
        return bool(ring[0, 1] == ring[1, 1]), int(ring[0, 1]), int(ring[0, 0])  # a hole begins to the right

    return sorted((sorted(rings, key=place) for rings in polygons.values()), key=lambda rings: place(rings[0]))
