"""The objects in label ids, with scores and, on demand, polygons; and labels that overlap, with one layer per class.

The index map of labels that overlap shows smaller layers on top of larger ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, Runs, components, count_labels, region_means, whole_classes
from tipsseg.regions.polygons import Outline, outline
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray, label_dtype


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


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The pixels of one class.

    Attributes:
        region: The pixels.
        confidence: [n] in [0, 1], the confidence of the pixels in `region.mask`, row by row. None if unknown.
    """

    region: Region
    confidence: ConfidenceArray | None = None

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the box around the pixels."""
        y, x, h, w = self.region.box
        return slice(y, y + h), slice(x, x + w)

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the pixels in an image of `size` (H, W), [H, W] bool."""
        mask = np.zeros(size, np.bool_)
        mask[self.place] = self.region.mask
        return mask

    def labels(self, size: tuple[int, int]) -> LabelArray:
        """Return the label id of the class on its pixels, 0 elsewhere, [H, W]."""
        class_id = self.region.class_id
        return cast(LabelArray, self.mask(size) * label_dtype(class_id)(class_id))

    def confidence_map(self, size: tuple[int, int]) -> ConfidenceArray:
        """Return the confidence on the pixels, 0 elsewhere, [H, W]. It must be known."""
        assert self.confidence is not None
        confidence = np.zeros(size, self.confidence.dtype)
        confidence[self.place][self.region.mask] = self.confidence
        return confidence


def make_layers(class_id: int, mask: NDArray[np.bool_], confidence: ConfidenceArray | None = None) -> list[Layer]:
    """Return the layer of a class from its pixels [H, W] and their confidence [H, W]; no layer if it has no pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return []
    y, x = int(rows[0]), int(columns[0])
    box = slice(y, int(rows[-1]) + 1), slice(x, int(columns[-1]) + 1)
    (found,) = whole_classes(mask[box].view(np.uint8), 1)
    runs = Runs(found.runs.column + np.int32(x), found.runs.top + np.int32(y), found.runs.stop + np.int32(y))
    region = Region(class_id, found.area, (y, x, *found.box[2:]), runs)
    return [Layer(region, None if confidence is None else confidence[box][mask[box]])]


def paint_layers(layers: Iterable[Layer], size: tuple[int, int], number_of_classes: int) -> LabelArray:
    """Return label ids [H, W]: the smallest layer at each pixel; of equal ones, that of the lower id; 0 outside all layers."""
    labels = np.zeros(size, label_dtype(number_of_classes))
    for layer in _largest_first(layers):
        labels[layer.place][layer.region.mask] = layer.region.class_id
    return cast(LabelArray, labels)


def paint_confidence(layers: Iterable[Layer], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the confidence [H, W] of the labels that `paint_layers` returns; 0 outside all layers."""
    confidence = np.zeros(size, np.float32)
    for layer in _largest_first(layers):
        confidence[layer.place][layer.region.mask] = layer.confidence
    return confidence


def count_pixels(labels: LabelArray, layers: Iterable[Layer] | None) -> NDArray[np.int64]:
    """Count the pixels of each label id: 256 counts, or 65536 for uint16. With layers, a pixel counts in each of them.

    Args:
        labels: [H, W], the label ids.
        layers: The classes, if they overlap; None if they do not.
    """
    counts = count_labels(labels)
    if layers is not None:
        counts[BACKGROUND + 1 :] = 0
        for layer in layers:
            counts[layer.region.class_id] = layer.region.area
    return counts


def class_mask(labels: LabelArray, layers: Iterable[Layer] | None, label_id: int) -> NDArray[np.bool_]:
    """Return the pixels of a class, or of the background or ignored pixels, [H, W]; see `count_pixels` for the arguments."""
    if layers is None or label_id == BACKGROUND:
        return labels == label_id
    height, width = labels.shape
    found = (layer.mask((height, width)) for layer in layers if layer.region.class_id == label_id)
    return next(found, np.zeros(labels.shape, np.bool_))


def layer_objects(
    layers: Sequence[Layer], size: tuple[int, int], number_of_classes: int, options: FileOptions
) -> list[LabelledObject]:
    """Find the objects in layers with known confidence, class by class, as `objects.labelled_objects` does for one class."""
    return [
        found
        for layer in layers
        for found in labelled_objects(layer.labels(size), layer.confidence_map(size), number_of_classes, options)
    ]


def _largest_first(layers: Iterable[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: (-layer.region.area, -layer.region.class_id))
