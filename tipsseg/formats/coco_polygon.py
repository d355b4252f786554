"""COCO instances for tools that want polygons: annotations-polygon.json, laid out as annotations.json.

An object's polygons are its parts, holes cut open to the outside; `area` and `bbox` are those of its pixels.
"""

from __future__ import annotations

from tipsseg.formats import RunContext
from tipsseg.formats.coco import CocoRunFile, CocoWriter
from tipsseg.regions.objects import LabelledObject


def polygons(labelled: LabelledObject, size: tuple[int, int]) -> object:
    """An object's polygons, each [x1, y1, x2, y2, ...] in pixels."""
    return [ring[:, ::-1].ravel().tolist() for ring in labelled.outline.rings]


def create(context: RunContext) -> CocoWriter:
    """The writer of format "coco-polygon"."""
    return CocoWriter(polygons)


def run_files(context: RunContext) -> tuple[CocoRunFile]:
    """The file of format "coco-polygon"."""
    return (CocoRunFile(context, "coco-polygon"),)
