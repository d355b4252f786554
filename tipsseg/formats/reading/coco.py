"""Read COCO instances with RLE masks or polygons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import (
    Objects,
    Size,
    SourceImage,
    check_size,
    image_errors,
    parse_floats,
    read_objects,
)
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import NoPixelsError, Shape, shape_from_box, shape_from_polygons, shape_from_rle
from tipsseg.util.json_values import short, take
from tipsseg.util.printable import shorten

#: The tipsseg format that describes objects in the same way, by whether the file has polygons.
_WRITTEN_AS = {False: "coco", True: "coco-polygon"}


def is_coco(value: object) -> bool:
    """Return True if a JSON value looks like a COCO instances file."""
    return _has_annotations(value) and not is_panoptic(value)


def is_panoptic(value: object) -> bool:
    """Return True if a JSON value looks like a COCO panoptic file, which describes pictures."""
    if not (isinstance(value, dict) and _has_annotations(value)):
        return False
    return any(isinstance(each, dict) and "segments_info" in each for each in value["annotations"][:1])


def _has_annotations(value: object) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("annotations"), list) and isinstance(value.get("images"), list)
    )


def read_coco(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images in all COCO instances files. Raises ImageError if a file is invalid."""
    for name in source.find_suffix(".json"):
        value = source.json(name)
        if is_coco(value):
            yield from _read_images(value, source.display_path(name), names)


def _read_images(value: Mapping[str, Any], where: Path, names: ClassNames) -> Iterator[SourceImage]:
    with image_errors(where):
        categories = {}
        for category in take(value, "categories", list):
            number = take(category, "id", int)
            if number in categories:
                raise ValueError(f"two categories have the id {number}")
            categories[number] = take(category, "name", str)
        names.declare(categories[number] for number in sorted(categories))
        info = value.get("info")
        turned = isinstance(info, dict) and info.get("contributor") == "Label Studio"
        for image, annotations in group_by_image(value):
            read = partial(_read_objects, annotations, image, categories, names, where, turned)
            # Label Studio also lists images that nobody submitted.
            yield SourceImage(image["file_name"], where, read, submitted=False)


def group_by_image(value: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Sequence[object]]]:
    """Return the images of a COCO file, each with its annotations. Raises ValueError if ids are missing, unknown or not unique."""
    annotations: dict[int, list[object]] = defaultdict(list)
    for annotation in value["annotations"]:
        annotations[take(annotation, "image_id", int)].append(annotation)
    images: dict[int, Mapping[str, Any]] = {}
    for image in value["images"]:
        number = take(image, "id", int)
        if number in images:
            raise ValueError(f"two images have the id {number}")
        take(image, "file_name", str)
        images[number] = image
    if stray := sorted(annotations.keys() - images.keys()):
        raise ValueError(f"annotations refer to image {stray[0]}, which is not listed")
    return [(image, annotations[number]) for number, image in images.items()]


def _read_objects(
    annotations: Sequence[object],
    image: Mapping[str, Any],
    categories: Mapping[int, str],
    names: ClassNames,
    where: Path,
    turned: bool,
    size: Size,
) -> Objects:
    file = shorten(image["file_name"])
    with image_errors(where, f"image {file}"):
        sides = (image.get("height"), image.get("width"))
        # Label Studio does not know the size of images that nobody submitted. Of images that EXIF turns, it writes the size before
        # the turn, and the corners after it.
        if (annotations or sides[0] is not None) and not (turned and sides == size[::-1]):
            check_size(*sides, size)

    def name_of(number: int, annotation: object) -> str:
        own = annotation.get("id") if isinstance(annotation, dict) else None
        return f"annotation {short(own)} ({file})"

    def read(annotation: object) -> Shape:
        category = take(annotation, "category_id", int)
        if category not in categories:
            raise ValueError(f"no category has the id {category}")
        return read_shape(annotation, names.id_of(categories[category]), size)

    polygons = any(isinstance(each, dict) and isinstance(each.get("segmentation"), list) for each in annotations)
    return read_objects(where, annotations, name_of, read, _WRITTEN_AS[polygons], f"image {file}")


def read_shape(annotation: object, class_id: int, size: Size) -> Shape:
    """Read the pixels of an annotation. Raises ValueError if it is invalid, NoPixelsError if it has neither mask nor box."""
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        return shape_from_rle(class_id, segmentation, size)
    if segmentation in (None, []):  # CVAT's rectangles, and objects that are too thin for a polygon
        if isinstance(annotation, dict) and annotation.get("bbox") is None:
            raise NoPixelsError("annotation without segmentation and box")
        box = parse_floats(take(annotation, "bbox", list))
        if len(box) != 4 or (box[2:] < 0).any():
            raise ValueError("a box must be x, y, width and height")
        x, y, w, h = box.tolist()
        return shape_from_box(class_id, (x, y, x + w, y + h), size)
    if not isinstance(segmentation, list):
        raise ValueError("`segmentation` is neither a list nor an RLE")
    rings = [parse_floats(ring) for ring in segmentation]
    if any(len(ring) % 2 for ring in rings):
        raise ValueError("a polygon has an odd number of coordinates")
    return shape_from_polygons(class_id, [ring.reshape(-1, 2) for ring in rings], size)
