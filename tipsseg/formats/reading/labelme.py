"""Read LabelMe's JSON files, one per image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import (
    Objects,
    Size,
    SourceImage,
    check_size,
    decode_png,
    parse_corners,
    read_objects,
)
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import NoPixelsError, Shape, clip_mask, ellipse_corners, shape_from_polygons
from tipsseg.util.json_values import short, take

#: Shape types without pixels.
_WITHOUT_PIXELS = frozenset({"line", "linestrip", "point", "points"})


def is_labelme(value: object) -> bool:
    """Return True if a JSON value looks like a LabelMe file."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list)


def read_labelme(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    for name in source.find_suffix(".json"):
        if names.collects:
            with suppress(ImageError):  # an error of its image
                value = source.json(name)
                shapes = value["shapes"] if is_labelme(value) else ()
                names.declare(shape.get("label") for shape in shapes if isinstance(shape, dict))
        read, other_name = partial(_read_objects, source, name, names), partial(_image_path, source, name)
        yield SourceImage(name[: -len(".json")], source.display_path(name), read, other_name=other_name)


def _read_objects(source: Source, name: str, names: ClassNames, size: Size) -> Objects:
    value = source.json(name)
    if not is_labelme(value):
        raise ValueError("not a LabelMe file: `shapes` is not a list")
    check_size(value.get("imageHeight"), value.get("imageWidth"), size)
    read = partial(_read_shape, names=names, size=size)
    return read_objects(
        source.display_path(name), value["shapes"], lambda number, _: f"shape {number}", read, "labelme"
    )


def _image_path(source: Source, name: str) -> str:
    """Return the path of the image that a file names; "" if it names none."""
    value = source.json(name)
    path = value.get("imagePath") if isinstance(value, dict) else None
    return str(PurePosixPath(name).parent / path.replace("\\", "/")) if isinstance(path, str) and path else ""


def _read_shape(record: object, names: ClassNames, size: Size) -> Shape:
    kind = record.get("shape_type") if isinstance(record, dict) else None
    if kind in _WITHOUT_PIXELS:
        raise NoPixelsError(str(kind))
    class_id = names.id_of(take(record, "label", str))
    points = parse_corners(take(record, "points", list))
    if not np.isfinite(points).all() or (np.abs(points) > 1e7).any():
        raise ValueError("a point has a coordinate that is not a number, or is out of range")
    if kind in (None, "polygon", "oriented_rectangle", "rotation") or (kind == "rectangle" and len(points) == 4):
        # X-AnyLabeling writes "rotation", and four points of a rectangle.
        return shape_from_polygons(class_id, [points], size)
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"unsupported shape type {short(kind)}")
    if len(points) != 2:
        raise ValueError(f"a {short(kind)} must have 2 points, not {len(points)}")
    (left, top), (right, bottom) = np.sort(points, axis=0).tolist()
    if kind == "rectangle":
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return shape_from_polygons(class_id, [corners], size)
    if kind == "circle":  # points: the centre, and one on the circumference
        radius = math.dist(*points.tolist())
        return shape_from_polygons(class_id, [ellipse_corners(tuple(points[0]), (radius, radius), 0)], size)
    return _decode_mask(class_id, take(record, "mask", str), round(top), round(left), size)


def _decode_mask(class_id: int, text: str, y: int, x: int, size: Size) -> Shape:
    """Decode a mask: a base64-encoded PNG whose top left pixel is at (y, x)."""
    return clip_mask(class_id, np.asarray(decode_png(text, size).convert("L")) > 0, y, x, size)
