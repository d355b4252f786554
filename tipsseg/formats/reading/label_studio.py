"""Read Label Studio's JSON export: polygons, rectangles and brush strokes in task annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import (
    Objects,
    Size,
    SourceImage,
    check_size,
    image_errors,
    parse_corners,
    parse_numbers,
    read_shapes,
)
from tipsseg.formats.reading.source import Source
from tipsseg.regions.brush import decode_brush
from tipsseg.regions.shapes import Shape, shape_from_mask, shape_from_polygons
from tipsseg.util.json_values import short, take

#: Result types that define pixels.
_REGIONS = ("polygonlabels", "rectanglelabels", "brushlabels")

#: Result types that describe the whole image. All other types have a location, but no pixels.
_IMAGE_TYPES = frozenset({"choices", "textarea", "rating", "number", "datetime", "relation", "taxonomy", "pairwise"})


def is_label_studio(value: object) -> bool:
    """Return True if a JSON value looks like a task or a list of tasks."""
    first = (value[0] if value else None) if isinstance(value, list) else value
    return (
        isinstance(first, dict)
        and isinstance(first.get("data"), dict)
        and not first.keys().isdisjoint(("annotations", "predictions"))
    )


def read_label_studio(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images of tasks that a person annotated. Raises ImageError if a task is invalid."""
    for name in source.find_suffix(".json"):
        value = source.json(name)
        where = source.display_path(name)
        if is_label_studio(value):
            for number, task in enumerate(value if isinstance(value, list) else [value], start=1):
                with image_errors(where, f"task {number}"):
                    image = _read_task(task, where, number, names)
                if image is not None:
                    yield image


def _read_task(task: object, where: Path, number: int, names: ClassNames) -> SourceImage | None:
    data = take(task, "data", dict)
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if annotations is None:
        return None
    if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
        raise ValueError("`annotations` is not a list of annotations")
    annotations = [entry for entry in annotations if not entry.get("was_cancelled")]
    if len(annotations) > 1:
        raise ValueError(f"{len(annotations)} annotations for one image: delete all but one")
    if not annotations:
        return None
    image = _image_name(data)
    read = partial(_read_objects, take(annotations[0], "result", list), names, where, f"task {number}")
    return SourceImage(image, where, read)


def _image_name(data: Mapping[str, Any]) -> str:
    """Return the image name of a task: the `file_name` that tipsseg wrote, or else the path in its URL."""
    name = data.get("file_name")
    if isinstance(name, str) and name:
        return name
    for value in (data.get("image"), *data.values()):
        if isinstance(value, str) and value:
            parts = urlsplit(value)
            local = parse_qs(parts.query).get("d")
            return local[0] if local else unquote(parts.path)
    raise ValueError("the task has no image")


def _read_objects(results: Sequence[object], names: ClassNames, where: Path, task: str, size: Size) -> Objects:
    read = partial(_read_shape, names=names, size=size)
    return Objects(read_shapes(where, results, "result", read, task), "label-studio")


def _read_shape(result: object, names: ClassNames, size: Size) -> Shape | None:
    """Return the pixels of a result; None if the result describes the whole image."""
    kind = take(result, "type", str)
    if kind in _IMAGE_TYPES:
        return None
    if not isinstance(result, dict) or kind not in _REGIONS:
        raise ValueError(f"unsupported result type {short(kind)}")
    if result.get("image_rotation", 0) != 0:
        raise ValueError("the image was rotated in Label Studio")
    check_size(result.get("original_height"), result.get("original_width"), size)
    value = take(result, "value", dict)
    labels = take(value, kind, list)
    if len(labels) != 1:
        raise ValueError(f"an object must have one class, not {len(labels)}")
    class_id = names.id_of(labels[0])
    if kind == "polygonlabels":
        return shape_from_polygons(class_id, [_to_pixels(value.get("points"), size)], size)
    if kind == "brushlabels":
        return shape_from_mask(class_id, decode_brush(value.get("rle"), size))
    return shape_from_polygons(class_id, [_read_rectangle(value, size)], size)


def _read_rectangle(value: Mapping[str, Any], size: Size) -> NDArray[np.float64]:
    if value.get("rotation", 0) != 0:
        raise ValueError("rotated rectangles are not supported")
    x, y, w, h = parse_numbers([value.get(key) for key in ("x", "y", "width", "height")]).tolist()
    return _to_pixels([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], size)


def _to_pixels(points: object, size: Size) -> NDArray[np.float64]:
    """Convert (x, y) corners [K, 2] from percent of the image size to pixels."""
    return parse_corners(points) * (size[1] / 100, size[0] / 100)
