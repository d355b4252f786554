"""Read Label Studio's exports JSON and JSON-MIN: polygons, rectangles, ellipses, brush strokes and bitmasks."""

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
    decode_png,
    image_errors,
    parse_corners,
    parse_floats,
    read_objects,
)
from tipsseg.formats.reading.source import Source
from tipsseg.regions.brush import decode_brush
from tipsseg.regions.shapes import (
    NoPixelsError,
    Shape,
    ellipse_corners,
    rectangle_corners,
    shape_from_mask,
    shape_from_polygons,
)
from tipsseg.util.json_values import short, take

#: Result types that define pixels.
_REGIONS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "bitmasklabels")

#: Result types with a location, but without pixels.
_WITHOUT_PIXELS = frozenset({"keypointlabels", "keypoint", "vectorlabels", "vector"})

#: Result types that describe the whole image.
_IMAGE_TYPES = frozenset({"choices", "textarea", "rating", "number", "datetime", "relation", "taxonomy", "pairwise"})


#: The start of a bitmask.
_DATA_URL = "data:image/png;base64,"


def is_label_studio(value: object) -> bool:
    """Return True if a JSON value looks like a task, a list of tasks, or JSON-MIN."""
    first = (value[0] if value else None) if isinstance(value, list) else value
    return isinstance(first, dict) and (
        _is_minimal(first)
        or (isinstance(first.get("data"), dict) and not first.keys().isdisjoint(("annotations", "predictions")))
    )


def _is_minimal(task: Mapping[str, object]) -> bool:
    return "annotation_id" in task and "data" not in task


def _expand(task: Mapping[str, Any]) -> dict[str, object]:
    """Return a record of JSON-MIN, which has the regions under the names of their tags, as a task."""
    tags = [value for value in task.values() if isinstance(value, list)]
    regions = [region for tag in tags for region in tag if isinstance(region, dict) and "original_width" in region]
    results = [
        {
            **region,
            "type": next((key for key in region if key.endswith("labels")), "region without a label"),
            "value": region,
        }
        for region in regions
    ]
    return {"data": task, "annotations": [{"result": results}]}


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
    if isinstance(task, dict) and _is_minimal(task):
        task = _expand(task)
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
    results = take(annotations[0], "result", list)
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        labels = value.get(result["type"]) if isinstance(value, dict) and result.get("type") in _REGIONS else None
        names.declare(labels if isinstance(labels, list) else ())
    read = partial(_read_objects, results, names, where, f"task {number}")
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
    return read_objects(where, results, lambda number, _: f"{task}, result {number}", read, "label-studio", task)


def _read_shape(result: object, names: ClassNames, size: Size) -> Shape | None:
    """Return the pixels of a result; None if the result describes the whole image."""
    kind = take(result, "type", str)
    if kind in _IMAGE_TYPES:
        return None
    if kind in _WITHOUT_PIXELS:
        raise NoPixelsError(kind)
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
    if kind == "bitmasklabels":
        return shape_from_mask(class_id, _read_bitmask(take(value, "imageDataURL", str), size))
    return shape_from_polygons(class_id, [_read_turned(value, kind, size)], size)


def _read_turned(value: Mapping[str, Any], kind: str, size: Size) -> NDArray[np.float64]:
    """Return the corners of a rectangle, which turns around its top left corner, or of an ellipse, around its centre."""
    sides = ("radiusX", "radiusY") if kind == "ellipselabels" else ("width", "height")
    angle = parse_floats([value.get("rotation", 0)]).item()
    start, lengths = _to_pixels([[value.get(key) for key in keys] for keys in (("x", "y"), sides)], size).tolist()
    if kind == "ellipselabels":
        return ellipse_corners(start, lengths, angle)
    return rectangle_corners(start, start, lengths, angle)


def _read_bitmask(url: str, size: Size) -> NDArray[np.bool_]:
    """Return the mask [H, W] in a data URL: a PNG whose opaque pixels belong to the object."""
    picture = decode_png(url.removeprefix(_DATA_URL), size)
    if (picture.height, picture.width) != size:
        raise ValueError(f"the bitmask is {picture.height} x {picture.width}, but the image is {size[0]} x {size[1]}")
    return np.asarray(picture.convert("RGBA"))[..., 3] > 0


def _to_pixels(points: object, size: Size) -> NDArray[np.float64]:
    """Convert (x, y) corners [K, 2] from percent of the image size to pixels."""
    return parse_corners(points) * (size[1] / 100, size[0] / 100)
