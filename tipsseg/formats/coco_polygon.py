"""COCO instances for tools that want polygons: annotations-polygon.json, laid out as annotations.json.

An object's polygons are its parts, holes cut open to the outside; `area` and `bbox` are those of its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RowsFile, RunContext
from tipsseg.formats.coco import annotated_rows, annotations_file

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject


class CocoPolygon(Format):
    """The format "coco-polygon"."""

    name = "coco-polygon"
    description = "COCO instances with polygons: annotations-polygon.json"
    files = ("annotations-polygon.json",)
    rows = True
    scores = True

    def image_rows(self, labels: ImageLabels, context: RunContext) -> Rows:
        """The entry of `images`, then the entries of `annotations`."""
        return annotated_rows(labels, _polygons)

    def run_files(self, context: RunContext) -> tuple[RowsFile]:
        """The file of images and annotations."""
        return (annotations_file(context, self.files[0]),)


def _polygons(objects: Sequence[LabelledObject], size: tuple[int, int]) -> Iterator[object]:
    """The polygons of each object, each [x1, y1, x2, y2, ...] in pixels."""
    return ([ring[:, ::-1].ravel().tolist() for ring in each.outline.rings] for each in objects)
