"""Find the connected regions of old labels, and the object of each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import components
from tipsseg.regions.shapes import Shape
from tipsseg.types import LabelArray


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
