"""Find the objects in label ids, each with its score and, once a format wants them, its polygons."""

from __future__ import annotations

from functools import cached_property

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, components, means_over, whole_classes
from tipsseg.regions.polygons import Outline, outline
from tipsseg.types import ConfidenceArray, LabelArray


class LabelledObject:
    """One object of an image.

    Attributes:
        region: The pixels of the object.
        score: The mean confidence of the pixels, 0..1, four decimals.
    """

    def __init__(self, region: Region, score: float, simplify: float | None = None) -> None:
        """`simplify`: how far, in pixels, the polygons may be from the pixels, see `polygons.outline`."""
        self.region = region
        self.score = score
        self._simplify = simplify

    @cached_property
    def outline(self) -> Outline:
        """The polygons of the object; made once, for all formats that want them."""
        return outline(self.region, self._simplify)

    @property
    def iou(self) -> float | None:
        """The intersection over union of polygons and pixels, 0..1; None as long as nobody asked for polygons."""
        made = self.__dict__.get("outline")
        return made.iou if isinstance(made, Outline) else None


def labelled_objects(
    labels: LabelArray, confidence: ConfidenceArray, number_of_classes: int, options: FileOptions
) -> list[LabelledObject]:
    """Find the objects in label ids [H, W] of the classes 1..N, each with the mean of the confidence [H, W], 0..1, over it."""
    regions = object_regions(labels, number_of_classes, options)
    return [
        LabelledObject(region, round(mean, 4), options.simplify)
        for region, mean in zip(regions, means_over(regions, confidence).tolist(), strict=True)
    ]


def object_regions(labels: LabelArray, number_of_classes: int, options: FileOptions) -> list[Region]:
    """Find the pixels of each object in label ids [H, W], in the order of `regions.components`."""
    find = whole_classes if options.instances == "class" else components
    height, width = labels.shape
    return find(labels, number_of_classes, options.min_area.pixels((height, width)))
