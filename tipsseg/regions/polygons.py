"""Trace the polygons of a region, and measure how well a reader recovers the region from them.

Readers disagree on coordinates: for some a pixel's index is its centre, for others its corner, and they round differently. So
outlines run an eighth of a pixel inside the edges of the outermost pixels, where all readers fill the same pixels. Readers take
the union of an object's rings, which cannot express holes, so each hole is joined to the outer ring by a bridge of zero width.
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
    """Summary of polygon quality: the number of objects, and the sum and minimum of their IoUs, see `Outline.iou`."""

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
