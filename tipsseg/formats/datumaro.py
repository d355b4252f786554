"""Datumaro's JSON, which CVAT and Datumaro export; read only.

    {"categories": {"label": {"labels": [{"name": "tree"}]}},
     "items": [{"id": "a", "image": {"path": "a.jpg", "size": [480, 640]},
                "annotations": [{"type": "polygon", "label_id": 0, "group": 3, "points": [0, 0, 9, 0, 9, 9]}]}]}

`size` is height and width, `points` are x and y in turn, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tipsseg.corrections.files import Source
from tipsseg.corrections.records import (
    ClassNames,
    Objects,
    Size,
    SourceImage,
    check_size,
    image_errors,
    parse_floats,
    read_objects,
)
from tipsseg.formats.base import Format
from tipsseg.formats.coco import read_shape
from tipsseg.regions.shapes import NoPixelsError, Shape, ellipse_corners, shape_from_polygons
from tipsseg.util.json import short, take

#: Types that describe the whole image.
_IMAGE_TYPES = frozenset({"label", "caption"})

#: Types of objects without pixels.
_WITHOUT_PIXELS = frozenset({"points", "polyline", "cuboid_3d", "cuboid_2d"})


class Datumaro(Format):
    name = "datumaro"
    description = "Datumaro's JSON"

    def detect_json(self, value: object) -> bool:
        return _is_datumaro(value)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        for name in source.find_suffix(".json"):
            value = source.json(name)
            if _is_datumaro(value):
                yield from _read_items(value, source.display_path(name), names)


def _is_datumaro(value: object) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("items"), list) and isinstance(value.get("categories"), dict)
    )


def _read_items(value: Mapping[str, Any], where: Path, names: ClassNames) -> Iterator[SourceImage]:
    with image_errors(where):
        listed = take(take(value["categories"], "label", dict), "labels", list)
        labels = [take(label, "name", str) for label in listed]
        names.declare(labels)
        for item in value["items"]:
            name, annotations = take(item, "id", str), take(item, "annotations", list)
            image = item.get("image")
            size = image.get("size") if isinstance(image, dict) else None
            read = partial(_read_objects, annotations, size, labels, names, where, name)
            yield SourceImage(name, where, read, submitted=False)


def _read_objects(
    annotations: Sequence[object],
    sides: object,
    labels: Sequence[str],
    names: ClassNames,
    where: Path,
    item: str,
    size: Size,
) -> Objects:
    with image_errors(where, f"item {short(item)}"):
        if isinstance(sides, list) and len(sides) == 2:  # images that were not opened have none
            check_size(sides[0], sides[1], size)
        # Datumaro keeps the box of a COCO object beside its polygons or its mask, in the same group.
        outlined = {each.get("group") for each in annotations if isinstance(each, dict) and each.get("type") != "bbox"}

    def read(annotation: object) -> Shape | None:
        kind = take(annotation, "type", str)
        group = annotation.get("group") if isinstance(annotation, dict) else None
        if kind in _IMAGE_TYPES or (kind == "bbox" and group and group in outlined):
            return None
        if kind in _WITHOUT_PIXELS:
            raise NoPixelsError(kind)
        number = take(annotation, "label_id", int)
        if not 0 <= number < len(labels):
            raise ValueError(f"no label has the number {number}")
        return _read_shape(annotation, kind, names.id_of(labels[number]), size)

    return read_objects(where, annotations, lambda number, _: f"item {short(item)}, annotation {number}", read, "coco")


def _read_shape(annotation: object, kind: str, class_id: int, size: Size) -> Shape:
    if kind == "mask":
        return read_shape({"segmentation": take(annotation, "rle", dict)}, class_id, size)
    if kind == "bbox":
        return read_shape(annotation, class_id, size)
    if kind not in ("polygon", "ellipse"):
        raise ValueError(f"unsupported type {short(kind)}")
    points = parse_floats(list(take(annotation, "points", list)))
    if len(points) % 2 or (kind == "ellipse" and len(points) != 4):
        wanted = "an ellipse must have 4 numbers" if kind == "ellipse" else "a polygon must have pairs of x and y"
        raise ValueError(f"{wanted} as `points`")
    corners = points.reshape(-1, 2)
    if kind == "ellipse":  # between two corners
        (left, top), (right, bottom) = corners.tolist()
        corners = ellipse_corners(((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2), 0)
    return shape_from_polygons(class_id, [corners], size)
