"""Labels that overlap: one layer per class. The index map of such labels shows smaller layers on top of larger ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, Runs, count_labels, whole_classes
from tipsseg.regions.objects import LabelledObject, labelled_objects
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray, label_dtype


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
