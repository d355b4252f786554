"""Objects in COCO's files of instances: run-length codes or polygons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tipsseg.formats.reading.found import Found, Objects, Size, check_number, check_size, faults_of, numbers_of
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import Shape, shape_from_polygons, shape_from_rle
from tipsseg.util.json_values import short, take
from tipsseg.util.printable import shortened

#: The formats that write objects so, by whether they write polygons.
_WRITTEN_AS = {False: "coco", True: "coco-polygon"}


def is_coco(value: object) -> bool:
    """Return whether a JSON value is a file of instances."""
    return (
        isinstance(value, dict) and isinstance(value.get("annotations"), list) and isinstance(value.get("images"), list)
    )


def coco(source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images of all files of instances. Raises ImageError."""
    for name in source.names:
        if name.lower().endswith(".json"):
            value = source.json(name)
            if is_coco(value):
                yield from _images(value, source.shown(name), names)


def _images(value: Mapping[str, Any], where: Path, names: ClassNames) -> Iterator[Found]:
    with faults_of(where):
        categories = {}
        for each in take(value, "categories", list):
            number = take(each, "id", int)
            if number in categories:
                raise ValueError(f"two categories have the id {number}")
            categories[number] = take(each, "name", str)
        own: dict[int, list[object]] = defaultdict(list)
        for each in value["annotations"]:
            own[take(each, "image_id", int)].append(each)
        seen: set[int] = set()
        for each in value["images"]:
            number = take(each, "id", int)
            if number in seen:
                raise ValueError(f"two images have the id {number}")
            seen.add(number)
            name = take(each, "file_name", str)
            read = partial(_objects, own[number], each, categories, names, where)
            # Label Studio lists images too that nobody submitted.
            yield Found(name, where, read, submitted=False)
        if stray := sorted(own.keys() - seen):
            raise ValueError(f"annotations of an image {stray[0]} that is not there")


def _objects(
    annotations: Sequence[object],
    image: Mapping[str, Any],
    categories: Mapping[int, str],
    names: ClassNames,
    where: Path,
    size: Size,
) -> Objects:
    file = shortened(image["file_name"])
    with faults_of(where, f"image {file}"):
        check_number(annotations)
        if (
            annotations or image.get("height") is not None
        ):  # Label Studio does not know the size of what nobody submitted
            check_size(image.get("height"), image.get("width"), size)
    shapes = []
    polygons = False
    for each in annotations:
        number = each.get("id") if isinstance(each, dict) else None
        with faults_of(where, f"annotation {short(number)} ({file})"):
            category = take(each, "category_id", int)
            if category not in categories:
                raise ValueError(f"no category has the id {category}")
            shapes.append(_shape(each, names.id_of(categories[category]), size))
        polygons = polygons or isinstance(take(each, "segmentation", object), list)
    return Objects(tuple(shapes), _WRITTEN_AS[polygons])


def _shape(annotation: object, class_id: int, size: Size) -> Shape:
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        return shape_from_rle(class_id, segmentation, size)
    if segmentation == []:  # so tools write things that are too thin for them
        return _box(class_id, take(annotation, "bbox", list), size)
    if not isinstance(segmentation, list):
        raise ValueError("it has no `segmentation`: a box alone says nothing of pixels")
    rings = [numbers_of(each) for each in segmentation]
    if any(len(ring) % 2 for ring in rings):
        raise ValueError("a polygon that is no list of x and y in turn")
    return shape_from_polygons(class_id, [ring.reshape(-1, 2) for ring in rings], size)


def _box(class_id: int, sides: list[object], size: Size) -> Shape:
    box = numbers_of(sides)
    if len(box) != 4 or not ((box >= 0) & (box <= max(size))).all():
        raise ValueError("a box that is not x, y, width and height within the image")
    x, y, w, h = map(round, box.tolist())
    return Shape(class_id, y, x, np.ones((max(min(h, size[0] - y), 0), max(min(w, size[1] - x), 0)), np.bool_), True)
