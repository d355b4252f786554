"""Read LabelMe's JSON files, one per image."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import Objects, Size, SourceImage, check_size, parse_corners, read_shapes
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import Shape, shape_from_mask, shape_from_polygons
from tipsseg.util.json_values import short, take

#: The number of corners in the polygon that approximates a circle.
_CORNERS = 360


def is_labelme(value: object) -> bool:
    """Return True if a JSON value looks like a LabelMe file."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list)


def read_labelme(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    for name in source.find_suffix(".json"):
        yield SourceImage(name[: -len(".json")], source.display_path(name), partial(_read_objects, source, name, names))


def _read_objects(source: Source, name: str, names: ClassNames, size: Size) -> Objects:
    value = source.json(name)
    if not is_labelme(value):
        raise ValueError("not a LabelMe file: `shapes` is not a list")
    check_size(value.get("imageHeight"), value.get("imageWidth"), size)
    read = partial(_read_shape, names=names, size=size)
    return Objects(read_shapes(source.display_path(name), value["shapes"], "shape", read), "labelme")


def _read_shape(record: object, names: ClassNames, size: Size) -> Shape:
    class_id = names.id_of(take(record, "label", str))
    kind = record.get("shape_type") if isinstance(record, dict) else None
    points = parse_corners(take(record, "points", list))
    if not np.isfinite(points).all() or (np.abs(points) > 1e7).any():
        raise ValueError("a point has a coordinate that is not a number, or is out of range")
    if kind in (None, "polygon"):
        return shape_from_polygons(class_id, [points], size)
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"unsupported shape type {short(kind)}: it has no pixels")
    if len(points) != 2:
        raise ValueError(f"a {short(kind)} must have 2 points, not {len(points)}")
    (left, top), (right, bottom) = np.sort(points, axis=0).tolist()
    if kind == "rectangle":
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return shape_from_polygons(class_id, [corners], size)
    if kind == "circle":  # points: the centre, and one on the circumference
        angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
        radius = math.dist(*points.tolist())
        return shape_from_polygons(
            class_id, [points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)], size
        )
    return _decode_mask(class_id, take(record, "mask", str), round(top), round(left), size)


def _decode_mask(class_id: int, text: str, y: int, x: int, size: Size) -> Shape:
    """Decode a mask: a base64-encoded PNG whose top left pixel is at (y, x)."""
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width > size[1] or picture.height > size[0]:
                raise ValueError(f"the mask, {picture.height} x {picture.width}, is larger than the image")
            mask = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mask is not a base64-encoded PNG: {error}") from error
    if not (0 <= y <= size[0] - mask.shape[0] and 0 <= x <= size[1] - mask.shape[1]):
        raise ValueError("the mask extends beyond the image")
    return shape_from_mask(class_id, mask, y, x)
