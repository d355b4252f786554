"""The objects in label ids, with scores and, on demand, polygons.

A pixel has the label id of the smallest part that it belongs to. It also belongs to the whole of that part: the objects of a whole
have the pixels of its parts, and the parts are objects too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.options import MinArea
from tipsseg.options.records import FileOptions
from tipsseg.regions.components import Region, components, count_labels, region_means, whole_classes
from tipsseg.regions.polygons import Outline, outline
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray, LabelClass, label_dtype

_Number = TypeVar("_Number", np.int64, np.float64)

#: The options that omit no object.
EVERY_OBJECT = FileOptions(instances="component", min_area=MinArea(1))


class LabelledObject:
    """One object in an image.

    Attributes:
        region: Pixels of the object.
        score: Mean confidence of the pixels, 0..1, rounded to four decimals.
    """

    def __init__(self, region: Region, score: float, simplify: float | None = None) -> None:
        """`simplify` is the tolerance of the polygons in pixels (see `polygons.outline`)."""
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


# ---- parts of wholes ----


@lru_cache(maxsize=64)
def _ancestors(wholes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the label ids of each class and of the wholes that it is in, the outermost first, from the whole of each class."""
    chains = [[number] for number in range(1, len(wholes) + 1)]
    for chain in chains:
        while wholes[chain[0] - 1]:
            chain.insert(0, wholes[chain[0] - 1])
    return tuple(map(tuple, chains))


def ancestors(classes: Sequence[LabelClass]) -> tuple[tuple[int, ...], ...]:
    """Return for each class its label id and the ids of the wholes that it is in, the outermost first."""
    return _ancestors(tuple(entry.part_of for entry in classes))


def has_parts(classes: Iterable[LabelClass]) -> bool:
    return any(entry.part_of for entry in classes)


def split_levels(labels: LabelArray, classes: Sequence[LabelClass]) -> Iterator[LabelArray]:
    """Yield label ids [H, W] by depth: `outermost`, then ids of parts, and so on; 0 where there is none."""
    yield outermost(labels, classes)
    chains = ancestors(classes)
    for depth in range(1, max(map(len, chains), default=1)):
        table = np.zeros(int(np.iinfo(labels.dtype).max) + 1, labels.dtype)
        for number, chain in enumerate(chains, start=1):
            table[number] = chain[depth] if depth < len(chain) else BACKGROUND
        yield cast(LabelArray, table[labels])


def outermost(labels: LabelArray, classes: Sequence[LabelClass]) -> LabelArray:
    """Return label ids [H, W] with outermost wholes in place of their parts. Other ids stay."""
    if not has_parts(classes):
        return labels
    table = np.arange(int(np.iinfo(labels.dtype).max) + 1, dtype=labels.dtype)
    table[1 : len(classes) + 1] = [chain[0] for chain in ancestors(classes)]
    return cast(LabelArray, table[labels])


def add_to_wholes(values: NDArray[_Number], classes: Sequence[LabelClass]) -> NDArray[_Number]:
    """Return values by label id, such as counts, in which the values of parts are added to their wholes."""
    totals = values.copy()
    for number, chain in enumerate(ancestors(classes), start=1):
        for whole in chain[:-1]:
            totals[whole] += values[number]
    return totals


def find_wholes(objects: Sequence[LabelledObject], classes: Sequence[LabelClass]) -> list[int | None]:
    """Return for each object the index of the object that it is a part of; None if there is none."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, entry in enumerate(objects):
        by_class[entry.region.class_id].append(index)
    found: list[int | None] = []
    for entry in objects:
        candidates = by_class[classes[entry.region.class_id - 1].part_of]
        column, top = int(entry.region.runs.column[0]), int(entry.region.runs.top[0])
        found.append(next((each for each in candidates if objects[each].region.contains(top, column)), None))
    return found


def visible_objects(
    objects: Sequence[LabelledObject], classes: Sequence[LabelClass], size: tuple[int, int]
) -> Sequence[LabelledObject]:
    """Return objects of wholes and parts such that each pixel belongs to one: what its parts leave of a whole is one object.

    Args:
        objects: All objects, parts after wholes.
        classes: The classes.
        size: (height, width) of the image.
    """
    if not has_parts(classes):
        return objects
    numbers = number_pixels(enumerate((entry.region for entry in objects), start=1), size).astype(np.int32)
    ids = np.array([BACKGROUND, *(entry.region.class_id for entry in objects)], label_dtype(len(classes)))
    regions = components(cast(LabelArray, ids[numbers]), len(classes), instances=numbers)
    owners = [numbers[region.runs.top[0], region.runs.column[0]] - 1 for region in regions]
    return [LabelledObject(region, objects[owner].score) for region, owner in zip(regions, owners, strict=True)]


# ---- objects ----


def labelled_objects(
    labels: LabelArray,
    confidences: Sequence[ConfidenceArray],
    classes: Sequence[LabelClass],
    options: FileOptions,
    instances: NDArray[np.int32] | None = None,
) -> list[LabelledObject]:
    """Find the objects in label ids [H, W], scored by their mean confidence; see `object_regions`.

    `confidences` are `LabelMap.whole_confidences`, then `LabelMap.confidence`.
    """
    objects = []
    for depth, level in enumerate(split_levels(labels, classes)):
        regions = _regions_of_level(level, classes, options, instances)
        means = region_means(regions, confidences[min(depth, len(confidences) - 1)]).tolist()
        objects += [
            LabelledObject(region, round(mean, 4), options.simplify)
            for region, mean in zip(regions, means, strict=True)
        ]
    chains = ancestors(classes)
    return sorted(objects, key=lambda entry: chains[entry.region.class_id - 1])  # stable


def object_regions(
    labels: LabelArray,
    classes: Sequence[LabelClass],
    options: FileOptions = EVERY_OBJECT,
    instances: NDArray[np.int32] | None = None,
) -> list[Region]:
    """Find the regions of the objects in label ids [H, W], in the order of `regions.components`, but parts after wholes.

    Without `options`, find all objects, whatever the file options of the run: their places in the list number them. `instances`
    [H, W] numbers the objects of a run with regions (see `naming`); 0 marks pixels whose objects are components.
    """
    levels = split_levels(labels, classes)
    regions = [region for level in levels for region in _regions_of_level(level, classes, options, instances)]
    chains = ancestors(classes)
    return sorted(regions, key=lambda region: chains[region.class_id - 1])  # stable


def _regions_of_level(
    labels: LabelArray, classes: Sequence[LabelClass], options: FileOptions, instances: NDArray[np.int32] | None
) -> list[Region]:
    height, width = labels.shape
    min_area = options.min_area.pixels((height, width))
    if options.instances == "class":
        return whole_classes(labels, len(classes), min_area)
    return components(labels, len(classes), min_area, instances)


def number_pixels(numbered: Iterable[tuple[int, Region]], size: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the number of the region at each pixel [H, W], the last one on top; 0 outside all regions."""
    numbers = np.zeros(size, np.uint32)
    for number, region in numbered:
        y, x, h, w = region.box
        numbers[y : y + h, x : x + w][region.mask] = number
    return numbers


def follow_correction(
    instances: NDArray[np.int32], labels: LabelArray, classes: Sequence[LabelClass]
) -> NDArray[np.int32]:
    """Return the instances [H, W] of labels that a person corrected, from the instances of the run. A part is in its whole's.

    An instance keeps its pixels of the class that most of them have now. Other pixels with a class, such as those that an object
    gained, join the instance of their class that they touch most; what touches none is an instance of its own.
    """
    labels = outermost(labels, classes)
    number_of_classes = len(classes)
    width = number_of_classes + 1
    owned = (instances > 0) & (labels > 0) & (labels <= number_of_classes)
    counts = np.bincount(
        instances[owned].astype(np.int64) * width + labels[owned], minlength=(int(instances.max()) + 1) * width
    )
    majority = counts.reshape(-1, width).argmax(axis=1)  # by instance
    kept = np.where(owned & (labels == majority[instances]), instances, 0).astype(np.int32)
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


def count_pixels(labels: LabelArray, classes: Sequence[LabelClass]) -> NDArray[np.int64]:
    """Count the pixels of each label id in labels [H, W]: 256 counts, or 65536 for uint16. A part counts in its wholes too."""
    return add_to_wholes(count_labels(labels), classes)


def class_mask(labels: LabelArray, classes: Sequence[LabelClass], label_id: int) -> NDArray[np.bool_]:
    """Return the pixels of a class with its parts, or of the background or ignored pixels, [H, W]."""
    parts = [number for number, chain in enumerate(ancestors(classes), start=1) if label_id in chain[:-1]]
    return np.isin(labels, [label_id, *parts]) if parts else labels == label_id
