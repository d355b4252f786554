"""Objects in the JSON files of LabelMe, one for each image."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from tipsseg.formats.reading.found import Found, Objects, Size, check_number, check_size, corners_of, faults_of
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import Shape, shape_from_mask, shape_from_polygons
from tipsseg.util.json_values import short, take

#: Corners that stand for a circle.
_CORNERS = 360


def is_labelme(value: object) -> bool:
    """Return whether a JSON value is a file of LabelMe."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list)


def labelme(source: Source, names: ClassNames) -> Iterator[Found]:
    for name in source.names:
        if name.lower().endswith(".json"):
            yield Found(name[: -len(".json")], source.shown(name), partial(_objects, source, name, names))


def _objects(source: Source, name: str, names: ClassNames, size: Size) -> Objects:
    value = source.json(name)
    if not is_labelme(value):
        raise ValueError("not a file of LabelMe: it has no list of `shapes`")
    check_number(value["shapes"])
    check_size(value.get("imageHeight"), value.get("imageWidth"), size)
    shapes = []
    for number, each in enumerate(value["shapes"], start=1):
        with faults_of(source.shown(name), f"shape {number}"):
            shapes.append(_shape(each, names, size))
    return Objects(tuple(shapes), "labelme")


def _shape(record: object, names: ClassNames, size: Size) -> Shape:
    class_id = names.id_of(take(record, "label", str))
    kind = record.get("shape_type") if isinstance(record, dict) else None
    points = corners_of(take(record, "points", list))
    if not np.isfinite(points).all() or (np.abs(points) > 1e7).any():
        raise ValueError("a point whose place is no number, or is far away")
    if kind in (None, "polygon"):
        return shape_from_polygons(class_id, [points], size)
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"a shape of the type {short(kind)}, which has no pixels")
    if len(points) != 2:
        raise ValueError(f"{short(kind)} of {len(points)} points")
    (left, top), (right, bottom) = np.sort(points, axis=0).tolist()
    if kind == "rectangle":
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return shape_from_polygons(class_id, [corners], size)
    if kind == "circle":  # its centre, and a point of its line
        turn = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
        radius = math.dist(*points.tolist())
        return shape_from_polygons(
            class_id, [points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)], size
        )
    return _painted(class_id, take(record, "mask", str), round(top), round(left), size)


def _painted(class_id: int, text: str, y: int, x: int, size: Size) -> Shape:
    """Return the pixels of a mask, a PNG in base64 whose first pixel is at (y, x)."""
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width > size[1] or picture.height > size[0]:
                raise ValueError(f"a mask of {picture.height} x {picture.width}, larger than the image")
            mask = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"its mask is no PNG in base64: {error}") from error
    if not (0 <= y <= size[0] - mask.shape[0] and 0 <= x <= size[1] - mask.shape[1]):
        raise ValueError("its mask leads out of the image")
    return shape_from_mask(class_id, mask, y, x)
