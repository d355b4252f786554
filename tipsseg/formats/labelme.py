"""LabelMe: a JSON file an image, with a polygon for each part of each object, and a link to the image beside it.

The parts of one object have one `group_id`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from tipsseg.formats import RunContext, link_path
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.regions.objects import ImageLabels, LabelledObject
from tipsseg.types import printable_path
from tipsseg.util.files import json_bytes

#: The version of LabelMe whose files these are like.
_VERSION = "5.5.0"


def file_record(labels: ImageLabels, names: str) -> dict[str, object]:
    """The content of an image's file; `names` as of FileOptions."""
    height, width = labels.label_map.size
    link = link_path("labelme", labels.ref.relative, names)
    if link is None:
        raise ValueError("the format labelme has links to the images")
    classes = {each.id: each.name for each in labels.label_map.classes}
    shapes = [
        _shape(classes[each.region.class_id], points, number if len(each.outline.rings) > 1 else None)
        for number, each in enumerate(labels.objects, start=1)
        for points in _points(each)
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": printable_path(PurePosixPath(link.name)),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def encode(labels: ImageLabels, names: str) -> bytes:
    """An image's file; `names` as of FileOptions."""
    return json_bytes(file_record(labels, names), indent=2) + b"\n"


def _points(labelled: LabelledObject) -> list[list[list[float]]]:
    return [ring[:, ::-1].tolist() for ring in labelled.outline.rings]


def _shape(name: str, points: list[list[float]], group: int | None) -> dict[str, object]:
    return {
        "label": name,
        "points": points,
        "group_id": group,
        "description": "",
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "labelme"."""
    return ImageFileWriter(context, "labelme", lambda labels: encode(labels, context.files.names))
