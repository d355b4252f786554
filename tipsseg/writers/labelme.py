"""LabelMe: a JSON file an image, with a polygon for each part of each object.

The parts of one object have one `group_id`. The image is where it was; its path is relative to the file.
"""

from __future__ import annotations

import os
from pathlib import Path

from tipsseg.files import json_bytes
from tipsseg.image_labels import ImageLabels, LabelledObject
from tipsseg.writers import RunContext, own_path
from tipsseg.writers.image_file import ImageFileWriter

#: The version of LabelMe whose files these are like.
_VERSION = "5.5.0"


def file_record(labels: ImageLabels, image_path: str) -> dict[str, object]:
    """The content of an image's file; `image_path` is where the image is."""
    height, width = labels.label_map.size
    names = {each.id: each.name for each in labels.label_map.classes}
    shapes = [
        _shape(names[each.region.class_id], points, number if len(each.outline.rings) > 1 else None)
        for number, each in enumerate(labels.objects, start=1)
        for points in _points(each)
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


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


def relative_to(image: Path, file: Path) -> str:
    """The path of an image from the folder of a file on, with "/" between folders."""
    return Path(os.path.relpath(os.path.realpath(image), os.path.realpath(file.parent))).as_posix()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "labelme"."""

    def encode(labels: ImageLabels) -> bytes:
        path = own_path("labelme", context.output, labels.ref.relative)
        image = "" if path is None else relative_to(labels.ref.path, path)
        return json_bytes(file_record(labels, image), indent=2) + b"\n"

    return ImageFileWriter(context, "labelme", encode)
