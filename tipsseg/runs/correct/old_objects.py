"""Convert old labels to objects: as a format writes them, or as connected regions. Find the object of each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.formats.yolo_boxes import oriented_box
from tipsseg.regions.components import Region, components
from tipsseg.regions.objects import LabelledObject
from tipsseg.regions.shapes import Shape, shape_from_polygons
from tipsseg.types import LabelArray

#: The unit and the decimals of coordinates in formats that write them relative to the image's sides.
_ROUNDED = {"yolo": (1, 6), "label-studio": (100, 5)}


def written_shapes(objects: Iterable[LabelledObject], name: str, size: tuple[int, int]) -> tuple[Shape, ...]:
    """Return the objects of an image of `size` (h, w) as a format writes them: as pixels, or as polygons."""
    if name == "coco":
        return tuple(Shape(entry.region.class_id, *entry.region.box[:2], entry.region.mask) for entry in objects)
    if name == "yolo-obb":
        return tuple(
            shape_from_polygons(entry.region.class_id, [_written_box(entry.region, size)], size) for entry in objects
        )
    whole, decimals = _ROUNDED.get(name, (None, 0))
    sides = np.array(size[::-1], np.float64)
    shapes = []
    for entry in objects:
        rings = [ring[:, ::-1] for ring in entry.outline.rings]  # [K, 2] (x, y)
        if whole is not None:
            rings = [np.round(ring * whole / sides, decimals) * (sides / whole) for ring in rings]
        # COCO stores an object with several parts as one object; the other formats store each part as an object.
        parts = [rings] if name == "coco-polygon" else [[ring] for ring in rings]
        shapes += [shape_from_polygons(entry.region.class_id, part, size) for part in parts]
    return tuple(shapes)


def _written_box(region: Region, size: tuple[int, int]) -> NDArray[np.float64]:
    _, decimals = _ROUNDED["yolo"]
    return np.round(oriented_box(region).clip(0, size) / size, decimals)[:, ::-1] * size[::-1]


def regions_of(labels: LabelArray) -> list[Shape]:
    return [Shape(region.class_id, *region.box[:2], region.mask) for region in components(labels, int(labels.max()))]


def owners_of(labels: LabelArray, objects: Sequence[Shape]) -> NDArray[np.int32]:
    """Return the index of the object that each pixel belongs to, [H, W]; -1 outside all objects.

    A pixel outside its object's polygon belongs to the nearest polygon of its class, if that polygon overlaps the connected region
    of the pixel.
    """
    owners = np.full(labels.shape, -1, np.int32)
    for class_id in dict.fromkeys(shape.class_id for shape in objects):
        own = (labels == class_id).view(np.uint8)
        inside = np.full(labels.shape, -1, np.int32)
        for index, shape in enumerate(objects):
            if shape.class_id == class_id:
                inside[shape.place][shape.mask] = index
        inside[own == 0] = -1
        _, regions = cv2.connectedComponents(own, connectivity=8)
        seeds = (inside < 0).astype(np.uint8)
        if seeds.all():
            continue
        _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        object_of_seed = np.zeros(int(nearest.max()) + 1, np.int32)
        object_of_seed[nearest[seeds == 0]] = inside[seeds == 0]
        reached = np.zeros(int(regions.max()) + 1, np.bool_)
        reached[regions[seeds == 0]] = True
        owned = (own > 0) & reached[regions]
        owners[owned] = object_of_seed[nearest[owned]]
    return owners
