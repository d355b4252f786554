"""LabelMe: one JSON file with polygons and one copy of the image per image.

The polygons of one object share a `group_id`, and so do a whole and its parts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats.base import BASE_FIELD, Format, ImageLabels, RunFacts, base_of
from tipsseg.formats.records import (
    ClassNames,
    Objects,
    Size,
    SourceImage,
    check_size,
    decode_png,
    parse_corners,
    read_objects,
)
from tipsseg.formats.source import Source
from tipsseg.regions.objects import find_wholes
from tipsseg.regions.shapes import NoPixelsError, Shape, clip_mask, ellipse_corners, shape_from_polygons
from tipsseg.types import printable_path
from tipsseg.util.json import json_bytes, short, take

#: Shape types without pixels.
_WITHOUT_PIXELS = frozenset({"line", "linestrip", "point", "points"})

#: The LabelMe version whose format is written.
_VERSION = "5.5.0"


class LabelMe(Format):
    name = "labelme"
    description = "LabelMe: labelme/<image>.json, with copies of the images"
    folder = "labelme"
    suffix = ".json"
    picture_folder = "labelme"
    needs = frozenset({"objects"})

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        height, width = image.size
        record: dict[str, object] = {
            "version": _VERSION,
            "flags": {},
            "shapes": _shapes(image, run),
            "imagePath": printable_path(PurePosixPath(self.picture_name(image.ref.relative, run.files))),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
            **({BASE_FIELD: image.base} if image.base else {}),
        }
        return json_bytes(record, indent=2) + b"\n"

    def detect_json(self, value: object) -> bool:
        return isinstance(value, dict) and isinstance(value.get("shapes"), list)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        for name in source.find_suffix(".json"):
            if names.collects:
                with suppress(ImageError):  # an error of its image
                    value = source.json(name)
                    shapes = value["shapes"] if self.detect_json(value) else ()
                    names.declare(shape.get("label") for shape in shapes if isinstance(shape, dict))
            read, other_name = partial(_read_objects, source, name, names), partial(_image_path, source, name)
            yield SourceImage(name[: -len(".json")], source.display_path(name), read, other_name=other_name)


def _shapes(image: ImageLabels, run: RunFacts) -> list[dict[str, object]]:
    wholes = find_wholes(image.objects, run.classes)
    outermost = list(range(len(wholes)))
    for index in range(len(wholes)):
        while (whole := wholes[outermost[index]]) is not None:
            outermost[index] = whole
    members = Counter(outermost)
    return [
        {
            "label": run.classes[entry.region.class_id - 1].name,
            "points": ring[:, ::-1].tolist(),
            "group_id": group + 1 if len(entry.outline.rings) > 1 or members[group] > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for group, entry in zip(outermost, image.objects, strict=True)
        for ring in entry.outline.rings
    ]


def _read_objects(source: Source, name: str, names: ClassNames, size: Size) -> Objects:
    value = source.json(name)
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        raise ValueError("not a LabelMe file: `shapes` is not a list")
    check_size(value.get("imageHeight"), value.get("imageWidth"), size)
    read = partial(_read_shape, names=names, size=size)
    where = source.display_path(name)
    return read_objects(
        where, value["shapes"], lambda number, _: f"shape {number}", read, "labelme", base=base_of(value)
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
    picture = decode_png(take(record, "mask", str), size)  # its top left pixel is at the first point
    return clip_mask(class_id, np.asarray(picture.convert("L")) > 0, round(top), round(left), size)
