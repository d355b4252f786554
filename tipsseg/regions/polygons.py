"""Trace the polygons of a region, measure how well a reader recovers it from them, and tell edits from what tools change.

Readers disagree on coordinates: for some a pixel's index is its centre, for others its corner, and they round differently. So
outlines run an eighth of a pixel inside the edges of the outermost pixels, where all readers fill the same pixels. Readers take
the union of an object's rings, which cannot express holes, so each hole is joined to the outer ring by a bridge of zero width.

The bounds of what tools change were found with tools that saved unedited objects (see tests/readers): an outline moves by at most
two pixels almost everywhere, and by up to four at single corners. Parts thinner than three pixels get lost; holes and narrow bays
are closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.regions.components import Region

#: Corners of an outline, [K, 2] float64: (y, x) in pixels; pixel (i, j) spans (i, j) to (i + 1, j + 1).
Ring = NDArray[np.float64]

#: The lowest accepted IoU of outlines with their region.
MIN_IOU = 0.99

#: The same for a tolerance set by the user. Without a limit, small and thin regions would vanish.
MIN_SIMPLIFIED_IOU = 0.8

# Tolerances of simplification in pixels. The next is tried if the IoU is too low.
_TOLERANCES = (0.5, 0.25, 0.0)

_INSET = 0.125


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Polygons of a region.

    Attributes:
        rings: A ring [K, 2] (y, x) per connected part, joined with its holes, in pixels of the image, rounded to three decimals.
        iou: IoU of the region and the rings as filled by pycocotools, 0..1.
    """

    rings: tuple[Ring, ...]
    iou: float


def outline(region: Region, simplify: float | None = None) -> Outline:
    """Trace the polygons of a region.

    `simplify` is the tolerance in pixels, reduced while the IoU is below MIN_SIMPLIFIED_IOU. None: half a pixel, reduced while
    the IoU is below MIN_IOU.
    """
    y, x, _, _ = region.box
    parts = _contours(region.mask)
    best = Outline((), -1.0)
    min_iou = MIN_IOU if simplify is None else MIN_SIMPLIFIED_IOU
    for tolerance in _TOLERANCES if simplify is None else _tolerances(simplify):
        rings = tuple(_keyhole(_simplify(outer, tolerance), [_simplify(hole, tolerance) for hole in holes])
                      for outer, holes in parts)  # fmt: skip
        iou = _iou(rings, region.mask)
        if iou > best.iou:
            best = Outline(rings, iou)
        if iou >= min_iou:
            break
    return Outline(tuple(np.round(ring + np.array((y, x)), 3) for ring in best.rings), best.iou)


def _tolerances(tolerance: float) -> Iterator[float]:
    while tolerance > _TOLERANCES[0]:
        yield tolerance
        tolerance /= 2
    yield from dict.fromkeys(min(tolerance, smaller) for smaller in _TOLERANCES)


def _contours(mask: NDArray[np.bool_]) -> list[tuple[Ring, list[Ring]]]:
    """Return the outer contour of each connected part, and the contours of its holes."""
    # Double the resolution, so that a contour can run along one side of a pixel.
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_to_points(contour) for contour in contours]
    parents: list[int] = tree[0, :, 3].tolist()
    holes: dict[int, list[Ring]] = {number: [] for number, parent in enumerate(parents) if parent < 0}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            holes[parent].append(ring)
    parts = [(rings[number], own) for number, own in holes.items()]
    # The order must not depend on OpenCV's contour numbering.
    return sorted(parts, key=lambda part: _top_left(part[0]))


def _to_points(contour: NDArray[np.integer | np.floating]) -> Ring:
    """Convert (x, y) indices of half pixels to (y, x) points an eighth of a pixel inside the pixels' edges."""
    halves = contour[:, 0, ::-1].astype(np.int64)
    return np.floor_divide(halves, 2) + np.where(halves % 2, 1 - _INSET, _INSET).astype(np.float64)


def _top_left(ring: Ring) -> tuple[float, float]:
    top = ring[:, 0].min()
    return float(top), float(ring[ring[:, 0] == top, 1].min())


def _simplify(ring: Ring, tolerance: float) -> Ring:
    """Remove corners within the tolerance. Halve the tolerance while fewer than three corners would remain."""
    while True:
        short = cv2.approxPolyDP(ring.astype(np.float32), tolerance, True)[:, 0].astype(np.float64)
        if len(short) >= 3:
            return short
        if tolerance <= _TOLERANCES[0]:
            return ring
        tolerance = max(tolerance / 2, _TOLERANCES[0])


def _keyhole(outer: Ring, holes: list[Ring]) -> Ring:
    """Join an outer ring and its holes into one ring."""
    # Join from left to right, so that everything to the left of a hole is already in the ring.
    for hole in sorted(holes, key=lambda ring: (ring[:, 1].min(), ring[:, 0].min())):
        leftmost = np.lexsort((hole[:, 0], hole[:, 1]))[0]
        own = np.roll(hole, -leftmost, axis=0)
        after, meeting = _cast_left(outer, own[0])
        outer = np.concatenate([outer[: after + 1], meeting, own, own[:1], meeting, outer[after + 1 :]])
    return outer


def _cast_left(ring: Ring, point: Ring) -> tuple[int, Ring]:
    """Cast a ray from a point to the left. Return the index of the first edge of the ring that it meets, and the point there,
    [1, 2].

    If the ray meets no edge, return the nearest corner of the ring.
    """
    y, x = point
    start, end = ring, np.roll(ring, -1, axis=0)
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    rise = np.where(start[:, 0] == end[:, 0], 1.0, end[:, 0] - start[:, 0])
    share = np.clip((y - start[:, 0]) / rise, 0, 1)
    meets = start[:, 1] + share * (end[:, 1] - start[:, 1])
    # A horizontal edge meets the ray at its nearer end.
    meets = np.where(start[:, 0] == end[:, 0], np.maximum(start[:, 1], end[:, 1]), meets)
    meets = np.where((low <= y) & (y <= high) & (meets <= x), meets, -np.inf)
    edge = int(meets.argmax())
    if np.isinf(meets[edge]):  # heavily simplified rings may cross
        edge = int(np.hypot(*(ring - point).T).argmin())
        return edge, ring[edge : edge + 1]
    return edge, np.array([[y, round(float(meets[edge]), 3)]])


def _iou(rings: tuple[Ring, ...], mask: NDArray[np.bool_]) -> float:
    """Return the IoU of a mask [h, w] and the union of the rings as filled by pycocotools."""
    read = coco_mask.frPyObjects([ring[:, ::-1].ravel().tolist() for ring in rings], *mask.shape)
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return float(coco_mask.iou([coco_mask.merge(read)], [code], [0])[0, 0])


@dataclass(frozen=True, slots=True)
class PolygonQuality:
    """Summary of polygon quality: the number of objects, and the sum and minimum of their IoUs (see `Outline.iou`)."""

    objects: int = 0
    total: float = 0.0
    worst: float = 1.0

    @classmethod
    def from_ious(cls, ious: Iterable[float | None]) -> PolygonQuality:
        """Summarize the IoUs of objects; None is an object without polygons."""
        known = [iou for iou in ious if iou is not None]
        return cls(len(known), sum(known), min(known, default=1.0))

    def __add__(self, other: PolygonQuality) -> PolygonQuality:
        return PolygonQuality(self.objects + other.objects, self.total + other.total, min(self.worst, other.worst))


#: Maximum distance by which tools move an outline, in pixels.
MOVED = 2.25

#: The same at single corners, and the share of an outline that may lie beyond MOVED.
_MOVED_MOST = 4.5
_SHARE = 0.1

#: Objects thinner than this, in pixels, may differ in at most this share of their pixels. But of those thinner than twice MOVED,
#: which tools may draw anywhere within MOVED, little or nothing may be left.
_THIN = 8
_THIN_SHARE = 2 / 3

#: Structuring element: parts that do not contain it are thin.
_BLOCK = np.ones((3, 3), np.uint8)

_Mask = NDArray[np.bool_]


def is_lost(mask: _Mask) -> bool:
    """Return True if a mask [h, w] contains no block of 3 x 3 pixels, so that tools may drop it completely."""
    return not _without_thin_parts(np.pad(mask, 1)).any()


def fill_holes(mask: _Mask) -> _Mask:
    """Fill the holes of a mask [h, w]."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def find_edits(old: _Mask, new: _Mask) -> _Mask | None:
    """Find the pixels that a person edited: the differences beyond the bounds, and the differences around them.

    `old` and `new` are masks [h, w] of the object before and after, with at least 3 pixels of background on each side. Return a
    mask [h, w], or None if all differences are within the bounds.
    """
    beyond = _beyond(old, new)
    if not beyond.any():
        return None
    edited: _Mask = (old != new) & (_distances(~beyond) <= MOVED + 1)
    return edited


def tool_variants(old: _Mask, new: _Mask) -> Iterator[_Mask]:
    """Yield the masks that a labelling tool may save for an unedited object: with and without narrow bays, with and without holes.

    Fill only holes whose edges `new` covers, and only the pixels in `new`, because a hole may contain other objects.
    """
    closed = cv2.morphologyEx(old.view(np.uint8), cv2.MORPH_CLOSE, _BLOCK).view(np.bool_)
    for base in (old, closed):
        yield base
        number, parts = cv2.connectedComponents((fill_holes(base) & ~base).view(np.uint8), connectivity=4)
        if number > 1:
            edges = np.where(cv2.dilate(base.view(np.uint8), _BLOCK, iterations=2) > 0, parts, 0)
            covered = np.bincount(edges[new], minlength=number) * 2 > np.bincount(edges.reshape(-1), minlength=number)
            covered[0] = False
            yield base | (covered[parts] & new)


def _beyond(old: _Mask, new: _Mask) -> _Mask:
    """Return a mask [h, w] of the differing pixels beyond the bounds; empty if they are few and close enough."""
    distance = np.zeros(old.shape, np.float32)
    for before, after in ((old, new), (~old, ~new)):
        lost = before & ~after
        if lost.any():
            # The depth inside the old object. For parts that are not thin, also the distance from the remaining pixels.
            far = np.where(_without_thin_parts(before) & after.any(), _distances(~after), 0)
            distance = np.where(lost, np.maximum(_distances(before), far), distance)
    inside = _distances(old)
    most = _THIN_SHARE * np.count_nonzero(old)
    if MOVED < inside.max() < _THIN / 2 and np.count_nonzero(distance) > most:
        return distance > 0
    beyond = distance > MOVED
    edge = np.count_nonzero((inside > 0) & (inside < 1.5))
    if distance.max() <= _MOVED_MOST and np.count_nonzero(beyond) <= _SHARE * edge:
        beyond[:] = False
    return beyond


def _distances(mask: _Mask) -> NDArray[np.float32]:
    """Return the distance of each pixel of a mask to the nearest one outside, [h, w]; large for a mask without background."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[return-value]


def _without_thin_parts(mask: _Mask) -> _Mask:
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, _BLOCK).view(np.bool_)
