"""COCO instances for tools that want polygons: annotations-polygon.json, laid out as annotations.json.

An object's polygons are its parts, holes cut open to the outside; `area` and `bbox` are those of its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tipsseg.formats.base import ImageLabels, Rows, RunFacts
from tipsseg.formats.coco import CocoInstances, annotated_rows

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject


class CocoPolygon(CocoInstances):
    name = "coco-polygon"
    description = "COCO instances with polygons: annotations-polygon.json"
    files = ("annotations-polygon.json",)

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return annotated_rows(image, _polygons(image.objects))


def _polygons(objects: Sequence[LabelledObject]) -> Iterator[object]:
    """Yield the polygons of each object, each [x1, y1, x2, y2, ...] in pixels."""
    return ([ring[:, ::-1].ravel().tolist() for ring in each.outline.rings] for each in objects)
