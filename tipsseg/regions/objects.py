"""One image with its labels, as writers take it, and the objects that its labels show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, components, mean_over, whole_classes
from tipsseg.regions.polygons import Outline, outline
from tipsseg.regions.quality import PolygonQuality
from tipsseg.types import ConfidenceArray, ImageRef, LabelMap


class LabelledObject:
    """One object of an image.

    region   its pixels
    score    mean confidence over them, 0..1, four decimals
    """

    def __init__(self, region: Region, score: float, simplify: float | None = None) -> None:
        """`simplify` is how far its polygons may be, see `polygons.outline`."""
        self.region = region
        self.score = score
        self._simplify = simplify

    @cached_property
    def outline(self) -> Outline:
        """Its polygons; made once, for all formats that want them."""
        return outline(self.region, self._simplify)

    @property
    def iou(self) -> float | None:
        """How well the polygons fit the pixels; None where no format wanted them."""
        made = self.__dict__.get("outline")
        return made.iou if isinstance(made, Outline) else None


class ImageLabels:
    """One image with its labels.

    ref        the image
    shown      gives it as it is shown to people, [h, w, 3] RGB uint8 of `upright.thumbnail_size`; not all formats need it. Raises
               ImageError where it cannot be read
    label_map  its labels
    """

    def __init__(
        self,
        ref: ImageRef,
        shown: Callable[[], NDArray[np.uint8]],
        label_map: LabelMap,
        find_objects: Callable[[LabelMap], Sequence[LabelledObject]],
    ) -> None:
        """`find_objects` is asked when the first format wants objects."""
        self.ref = ref
        self.shown = shown
        self.label_map = label_map
        self._find_objects = find_objects

    @cached_property
    def objects(self) -> Sequence[LabelledObject]:
        """Its objects in the order of `regions.components`; found once, for all formats that want them."""
        return self._find_objects(self.label_map)

    @property
    def fidelity(self) -> PolygonQuality:
        """How well the polygons that were made fit."""
        found: Iterable[LabelledObject] = self.__dict__.get("objects", ())
        return PolygonQuality.of(each.iou for each in found)


def labelled_objects(label_map: LabelMap, options: FileOptions) -> list[LabelledObject]:
    """The objects that the labels show, each with the mean of the confidence over it."""
    return [
        LabelledObject(region, mean_score(region, label_map.confidence), options.simplify)
        for region in object_regions(label_map, options)
    ]


def object_regions(label_map: LabelMap, options: FileOptions) -> list[Region]:
    """The pixels of each object that the labels show, in the order of `regions.components`."""
    find = whole_classes if options.instances == "class" else components
    return find(label_map.labels, len(label_map.classes), options.min_area.pixels(label_map.size))


def mean_score(region: Region, confidence: ConfidenceArray) -> float:
    """The mean confidence over a region of an image, four decimals."""
    return round(mean_over(region, confidence), 4)
