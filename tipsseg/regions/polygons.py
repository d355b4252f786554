"""Draw polygons that readers turn back into the region, and measure how well they do.

Readers disagree on where a pixel is: some take its index for its centre, some for its corner, and they round differently. So
outlines keep an eighth of a pixel inside the outermost pixels' edges, where all of them fill the same pixels. A ring cannot say
what is not in it, and readers add up the rings of an object: so a hole is cut open to the outside by a bridge of no width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.regions.components import Region

#: Corners of an outline, [K, 2] float64: (y, x) in pixels, where pixel (i, j) reaches from (i, j) to (i + 1, j + 1).
Ring = NDArray[np.float64]

#: The lowest IoU that outlines may have with their region.
MIN_IOU = 0.99

#: The same where simpler outlines are asked for. Small and thin regions would have nothing left.
MIN_SIMPLIFIED_IOU = 0.8

# How far, in pixels, a simplified outline may be off; the next one is taken where that costs too much.
_TOLERANCES = (0.5, 0.25, 0.0)

_INSET = 0.125


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The polygons of a region.

    Attributes:
        rings: A ring [K, 2] (y, x) for each connected part, holes cut open, in pixels of the image; at most three decimals.
        iou: The intersection over union of the region with what pycocotools makes of the rings, 0..1.
    """

    rings: tuple[Ring, ...]
    iou: float


def outline(region: Region, simplify: float | None = None) -> Outline:
    """Draw the polygons of a region.

    `simplify` is how far, in pixels, an outline may be off, less if the IoU would fall below MIN_SIMPLIFIED_IOU. None: half a
    pixel, and less if it would fall below MIN_IOU.
    """
    y, x, _, _ = region.box
    parts = _contours(region.mask)
    best = Outline((), -1.0)
    min_iou = MIN_IOU if simplify is None else MIN_SIMPLIFIED_IOU
    for tolerance in _TOLERANCES if simplify is None else _halved(simplify):
        rings = tuple(_keyhole(_simplified(outer, tolerance), [_simplified(hole, tolerance) for hole in holes])
                      for outer, holes in parts)  # fmt: skip
        iou = _iou(rings, region.mask)
        if iou > best.iou:
            best = Outline(rings, iou)
        if iou >= min_iou:
            break
    return Outline(tuple(np.round(ring + np.array((y, x)), 3) for ring in best.rings), best.iou)


def _halved(tolerance: float) -> Iterator[float]:
    while tolerance > _TOLERANCES[0]:
        yield tolerance
        tolerance /= 2
    yield from dict.fromkeys(min(tolerance, smaller) for smaller in _TOLERANCES)


def _contours(mask: NDArray[np.bool_]) -> list[tuple[Ring, list[Ring]]]:
    """Return the outer contour of each connected part, with the contours of its holes."""
    # Each pixel becomes four, so that its contour can keep to one side of it.
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_placed(contour) for contour in contours]
    parents: list[int] = tree[0, :, 3].tolist()
    holes: dict[int, list[Ring]] = {number: [] for number, parent in enumerate(parents) if parent < 0}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            holes[parent].append(ring)
    parts = [(rings[number], own) for number, own in holes.items()]
    # The order must not hang on how OpenCV numbers contours.
    return sorted(parts, key=lambda part: _first(part[0]))


def _placed(contour: NDArray[np.integer | np.floating]) -> Ring:
    """Move from indices of halves of pixels, (x, y), to points an eighth of a pixel inside the edges of the pixels, (y, x)."""
    halves = contour[:, 0, ::-1].astype(np.int64)
    return np.floor_divide(halves, 2) + np.where(halves % 2, 1 - _INSET, _INSET).astype(np.float64)


def _first(ring: Ring) -> tuple[float, float]:
    top = ring[:, 0].min()
    return float(top), float(ring[ring[:, 0] == top, 1].min())


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Leave out corners that are not farther off than the tolerance, or than a smaller one if less than a triangle would stay."""
    while True:
        short = cv2.approxPolyDP(ring.astype(np.float32), tolerance, True)[:, 0].astype(np.float64)
        if len(short) >= 3:
            return short
        if tolerance <= _TOLERANCES[0]:
            return ring
        tolerance = max(tolerance / 2, _TOLERANCES[0])


def _keyhole(outer: Ring, holes: list[Ring]) -> Ring:
    """Join the outside and the holes into one ring."""
    # From left to right, so that whatever a hole's bridge can meet on its left is in the ring already.
    for hole in sorted(holes, key=lambda ring: (ring[:, 1].min(), ring[:, 0].min())):
        leftmost = np.lexsort((hole[:, 0], hole[:, 1]))[0]
        own = np.roll(hole, -leftmost, axis=0)
        after, meeting = _to_the_left(outer, own[0])
        outer = np.concatenate([outer[: after + 1], meeting, own, own[:1], meeting, outer[after + 1 :]])
    return outer


def _to_the_left(ring: Ring, point: Ring) -> tuple[int, Ring]:
    """Return where a line from a point straight to the left first meets the ring: the number of the edge, and the place, [1, 2].

    If it meets nothing: the nearest corner of the ring.
    """
    y, x = point
    start, end = ring, np.roll(ring, -1, axis=0)
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    rise = np.where(start[:, 0] == end[:, 0], 1.0, end[:, 0] - start[:, 0])
    share = np.clip((y - start[:, 0]) / rise, 0, 1)
    meets = start[:, 1] + share * (end[:, 1] - start[:, 1])
    # Of an edge along the line it is the nearer end.
    meets = np.where(start[:, 0] == end[:, 0], np.maximum(start[:, 1], end[:, 1]), meets)
    meets = np.where((low <= y) & (y <= high) & (meets <= x), meets, -np.inf)
    edge = int(meets.argmax())
    if np.isinf(meets[edge]):  # rings that were simplified far may cross
        edge = int(np.hypot(*(ring - point).T).argmin())
        return edge, ring[edge : edge + 1]
    return edge, np.array([[y, round(float(meets[edge]), 3)]])


def _iou(rings: tuple[Ring, ...], mask: NDArray[np.bool_]) -> float:
    """Return the IoU of a mask [h, w] with the union of the rings, as pycocotools fills them."""
    read = coco_mask.frPyObjects([ring[:, ::-1].ravel().tolist() for ring in rings], *mask.shape)
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return float(coco_mask.iou([coco_mask.merge(read)], [code], [0])[0, 0])


@dataclass(frozen=True, slots=True)
class PolygonQuality:
    """The fit of polygons: the number of objects, and the sum and the lowest of their IoUs (see `polygons.Outline.iou`)."""

    objects: int = 0
    total: float = 0.0
    worst: float = 1.0

    @classmethod
    def of(cls, ious: Iterable[float | None]) -> PolygonQuality:
        """Sum up IoUs of objects; None: an object without polygons."""
        known = [iou for iou in ious if iou is not None]
        return cls(len(known), sum(known), min(known, default=1.0))

    def __add__(self, other: PolygonQuality) -> PolygonQuality:
        return PolygonQuality(self.objects + other.objects, self.total + other.total, min(self.worst, other.worst))
