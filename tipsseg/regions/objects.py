"""Find the objects in label ids, with scores and, on demand, polygons."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, components, region_means, whole_classes
from tipsseg.regions.polygons import Outline, outline
from tipsseg.types import ConfidenceArray, LabelArray


class LabelledObject:
    """One object in an image.

    Attributes:
        region: Pixels of the object.
        score: Mean confidence of the pixels, 0..1, rounded to four decimals.
    """

    def __init__(self, region: Region, score: float, simplify: float | None = None) -> None:
        """`simplify` is the tolerance of the polygons in pixels, see `polygons.outline`."""
        self.region = region
        self.score = score
        self._simplify = simplify

    @cached_property
    def outline(self) -> Outline:
        """Polygons of the object. Computed on first access and shared by all formats."""
        return outline(self.region, self._simplify)

    @property
    def iou(self) -> float | None:
        """IoU between the polygons and the pixels, 0..1; None if `outline` was never accessed."""
        computed = self.__dict__.get("outline")
        return computed.iou if isinstance(computed, Outline) else None


def labelled_objects(
    labels: LabelArray,
    confidence: ConfidenceArray,
    number_of_classes: int,
    options: FileOptions,
    instances: NDArray[np.int32] | None = None,
) -> list[LabelledObject]:
    """Find the objects of the classes 1..N in label ids [H, W], scored by their mean confidence; see `object_regions`."""
    regions = object_regions(labels, number_of_classes, options, instances)
    return [
        LabelledObject(region, round(mean, 4), options.simplify)
        for region, mean in zip(regions, region_means(regions, confidence).tolist(), strict=True)
    ]


def object_regions(
    labels: LabelArray, number_of_classes: int, options: FileOptions, instances: NDArray[np.int32] | None = None
) -> list[Region]:
    """Find the regions of the objects in label ids [H, W], in the order of `regions.components`.

    `instances` [H, W] numbers the objects of a run with regions, see `naming`; 0 marks pixels whose objects are components.
    """
    height, width = labels.shape
    min_area = options.min_area.pixels((height, width))
    if options.instances == "class":
        return whole_classes(labels, number_of_classes, min_area)
    return components(labels, number_of_classes, min_area, instances)


def numbered_objects(
    labels: LabelArray, number_of_classes: int, instances: NDArray[np.int32] | None = None
) -> list[Region]:
    """Find all objects in label ids [H, W], whatever the file options of the run. Their places in the list number them.

    See `object_regions` for `instances`.
    """
    return components(labels, number_of_classes, instances=instances)


def number_pixels(regions: Iterable[Region], size: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the number of the region at each pixel [H, W]: 1, 2, ... in order, 0 outside all regions."""
    numbers = np.zeros(size, np.uint32)
    for number, region in enumerate(regions, start=1):
        y, x, h, w = region.box
        numbers[y : y + h, x : x + w][region.mask] = number
    return numbers


def follow_correction(instances: NDArray[np.int32], labels: LabelArray, number_of_classes: int) -> NDArray[np.int32]:
    """Return the instances [H, W] of labels that a person corrected, from the instances of the run.

    An instance keeps its pixels of the class that most of them have now. Other pixels with a class, such as those that an object
    gained, join the instance of their class that they touch most; what touches none is an instance of its own.
    """
    width = number_of_classes + 1
    owned = (instances > 0) & (labels > 0) & (labels <= number_of_classes)
    counts = np.bincount(
        instances[owned].astype(np.int64) * width + labels[owned], minlength=(int(instances.max()) + 1) * width
    )
    classes = counts.reshape(-1, width).argmax(axis=1)  # by instance
    kept = np.where(owned & (labels == classes[instances]), instances, 0).astype(np.int32)
    free = labels.copy()
    free[kept > 0] = 0
    result = kept.copy()
    for number, region in enumerate(components(free, number_of_classes), start=int(instances.max()) + 1):
        y, x, h, w = region.box
        top, left = max(y - 1, 0), max(x - 1, 0)
        around = slice(top, y + h + 1), slice(left, x + w + 1)
        mask = np.zeros(labels[around].shape, np.uint8)
        mask[y - top : y - top + h, x - left : x - left + w] = region.mask
        touching = cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(np.bool_) & (labels[around] == region.class_id)
        neighbours = np.bincount(kept[around][touching])
        neighbours[0] = 0
        result[around][mask > 0] = int(neighbours.argmax()) if neighbours.any() else number
    return result
