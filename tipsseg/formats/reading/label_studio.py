"""Objects in the JSON export of Label Studio: the annotations of tasks, polygons, rectangles and brush strokes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats.reading.found import (
    Found,
    Objects,
    Size,
    check_number,
    check_size,
    corners_of,
    faults_of,
    numbers_of,
)
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.source import Source
from tipsseg.regions.brush import decode_brush
from tipsseg.regions.shapes import Shape, shape_from_mask, shape_from_polygons
from tipsseg.util.json_values import short, take

#: The kinds of results that have pixels.
_REGIONS = ("polygonlabels", "rectanglelabels", "brushlabels")

#: Kinds that have no place in the image; the others have one, and no pixels.
_OF_THE_IMAGE = frozenset({"choices", "textarea", "rating", "number", "datetime", "relation", "taxonomy", "pairwise"})


def is_label_studio(value: object) -> bool:
    """Return whether a JSON value is a list of tasks, or one task."""
    first = (value[0] if value else None) if isinstance(value, list) else value
    return (
        isinstance(first, dict)
        and isinstance(first.get("data"), dict)
        and not first.keys().isdisjoint(("annotations", "predictions"))
    )


def label_studio(source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images of tasks that a person annotated. Raises ImageError."""
    for name in source.names:
        if name.lower().endswith(".json"):
            value = source.json(name)
            where = source.shown(name)
            if is_label_studio(value):
                for number, task in enumerate(value if isinstance(value, list) else [value], start=1):
                    with faults_of(where, f"task {number}"):
                        found = _task(task, where, number, names)
                    if found is not None:
                        yield found


def _task(task: object, where: Path, number: int, names: ClassNames) -> Found | None:
    data = take(task, "data", dict)
    made = task.get("annotations") if isinstance(task, dict) else None
    if made is None:
        return None
    if not isinstance(made, list) or not all(isinstance(each, dict) for each in made):
        raise ValueError("`annotations` is no list of annotations")
    made = [each for each in made if not each.get("was_cancelled")]
    if len(made) > 1:
        raise ValueError(f"{len(made)} annotations of one image: delete those that do not count")
    if not made:
        return None
    image = _image_name(data)
    return Found(image, where, partial(_objects, take(made[0], "result", list), names, where, f"task {number}"))


def _image_name(data: Mapping[str, Any]) -> str:
    """Return the image of a task: as tipsseg named it, or by the address that the task has."""
    own = data.get("file_name")
    if isinstance(own, str) and own:
        return own
    for value in (data.get("image"), *data.values()):
        if isinstance(value, str) and value:
            parts = urlsplit(value)
            local = parse_qs(parts.query).get("d")
            return local[0] if local else unquote(parts.path)
    raise ValueError("no image")


def _objects(results: Sequence[object], names: ClassNames, where: Path, what: str, size: Size) -> Objects:
    shapes = []
    with faults_of(where, what):
        check_number(results)
    for number, each in enumerate(results, start=1):
        with faults_of(where, f"{what}, result {number}"):
            shape = _shape(each, names, size)
        if shape is not None:
            shapes.append(shape)
    return Objects(tuple(shapes), "label-studio")


def _shape(result: object, names: ClassNames, size: Size) -> Shape | None:
    """Return the pixels of a result; None for one that is about the image as a whole."""
    kind = take(result, "type", str)
    if kind in _OF_THE_IMAGE:
        return None
    if not isinstance(result, dict) or kind not in _REGIONS:
        raise ValueError(f"a result of the type {short(kind)}, whose pixels cannot be told")
    if result.get("image_rotation", 0) != 0:
        raise ValueError("the image was rotated in Label Studio")
    check_size(result.get("original_height"), result.get("original_width"), size)
    value = take(result, "value", dict)
    labels = take(value, kind, list)
    if len(labels) != 1:
        raise ValueError(f"{len(labels)} classes of one object")
    class_id = names.id_of(labels[0])
    if kind == "polygonlabels":
        return shape_from_polygons(class_id, [_percent(value.get("points"), size)], size)
    if kind == "brushlabels":
        return shape_from_mask(class_id, decode_brush(value.get("rle"), size))
    return shape_from_polygons(class_id, [_rectangle(value, size)], size)


def _rectangle(value: Mapping[str, Any], size: Size) -> NDArray[np.float64]:
    if value.get("rotation", 0) != 0:
        raise ValueError("a rectangle that was rotated")
    x, y, w, h = numbers_of([value.get(key) for key in ("x", "y", "width", "height")]).tolist()
    return _percent([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], size)


def _percent(points: object, size: Size) -> NDArray[np.float64]:
    """Return corners [K, 2], x and y in pixels, from percent of the sides of the image."""
    return corners_of(points) * (size[1] / 100, size[0] / 100)
