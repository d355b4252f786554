"""COCO instances: annotations.json with masks as compressed RLE, annotations-polygon.json with polygons, and COCO results.

An annotation of a whole has the pixels of its parts. An annotation of a part has `part_of`, the id of the annotation of its whole.

Both files have one record per line, with annotations in the order of the images, so they can be written, read and checked line by
line.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tipsseg.formats.base import BASE_FIELD, Format, ImageLabels, Rows, RunFacts, base_of
from tipsseg.formats.records import (
    ClassNames,
    Objects,
    Size,
    SourceImage,
    check_size,
    image_errors,
    parse_floats,
    read_objects,
)
from tipsseg.formats.source import Source
from tipsseg.regions.components import encode_regions
from tipsseg.regions.objects import LabelledObject, find_wholes
from tipsseg.regions.shapes import NoPixelsError, Shape, shape_from_box, shape_from_polygons, shape_from_rle
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.json import encode_list, encode_section, json_bytes, prepend, short, take
from tipsseg.util.text import shorten

FILE_NAME = "annotations.json"

_Record = dict[str, object]

#: The key of a part's annotation with the id of the annotation of its whole.
_PART_OF = "part_of"
_WHOLE = re.compile(rb'"%b": (\d+)\}$' % _PART_OF.encode())

_UNITS = {"component": "connected component", "class": "class and image"}
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")


class Coco(Format):
    """COCO instances with masks."""

    name = "coco"
    description = "COCO instances with RLE masks: annotations.json"
    files = (FILE_NAME,)
    needs = frozenset({"objects"})

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return _encode_rows(image, run, encode_masks(image.objects, image.size))

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        yield from encode_head(run, "annotation", map(category_record, run.classes))
        yield from encode_section(b"images", image_lines(images, rows))
        yield from encode_section(b"annotations", _annotation_lines(images, rows))
        yield b"\n}\n"

    def detect_json(self, value: object) -> bool:
        return is_coco(value)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images in all COCO instances files, whether they have masks or polygons."""
        for name in source.find_suffix(".json"):
            value = source.json(name)
            if is_coco(value):
                yield from _read_images(value, source.display_path(name), names)

    def reread_shapes(self, objects: Iterable[LabelledObject], size: tuple[int, int]) -> list[Shape]:
        return [entry.region.shape() for entry in objects]


class CocoPolygon(Coco):
    """COCO instances with polygons, for tools that cannot read masks.

    Every part of an object is one polygon, in which a cut joins each hole to the outer ring. `area` and `bbox` are computed from
    the pixels, not from the polygons.
    """

    name = "coco-polygon"
    description = "COCO instances with polygons: annotations-polygon.json"
    files = ("annotations-polygon.json",)

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        # Each polygon is [x1, y1, x2, y2, ...] in pixels.
        polygons = ([ring[:, ::-1].ravel().tolist() for ring in entry.outline.rings] for entry in image.objects)
        return _encode_rows(image, run, polygons)

    def reread_shapes(self, objects: Iterable[LabelledObject], size: tuple[int, int]) -> list[Shape]:
        """Return the pixels of the polygons of objects. All parts of an object stay together."""
        return [
            shape_from_polygons(each.region.class_id, [ring[:, ::-1] for ring in each.outline.rings], size)
            for each in objects
        ]


class CocoResults(Format):
    """COCO results: the plain list that COCO's `loadRes` loads.

    Image ids match those in an annotations.json for the same images. Every result also has a `file_name`, which other readers
    ignore: without it, nobody could match results with images that lack objects.
    """

    name = "coco-results"
    description = "COCO results, the list that loadRes reads: results.json"
    files = ("results.json",)
    needs = frozenset({"objects"})

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return tuple(
            json_bytes(
                {
                    "category_id": entry.region.class_id,
                    "segmentation": segmentation,
                    "score": entry.score,
                    "file_name": image.ref.name,
                }
            )
            for entry, segmentation in zip(image.objects, encode_masks(image.objects, image.size), strict=True)
        )

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        numbered = enumerate(images, start=1)
        results = (prepend(b'"image_id": %d' % number, row) for number, image in numbered for row in rows(image))
        return chain(encode_list(results), (b"\n",))


# ---- writing ----


def _encode_rows(image: ImageLabels, run: RunFacts, segmentations: Iterable[object]) -> Rows:
    """Return the `images` entry, then the `annotations` entries. `run_file` adds the ids, which are unique in the file."""
    annotations = annotation_records(image.objects, segmentations, run.classes)
    return tuple(json_bytes(record) for record in (image_record(image.ref, image.size, image.base), *annotations))


def annotation_records(
    objects: Sequence[LabelledObject], segmentations: Iterable[object], classes: Sequence[LabelClass], first: int = 0
) -> list[_Record]:
    """Return the entries of the objects of an image, without ids: a part names its whole by its position, from `first`."""
    records = list(map(annotation_record, objects, segmentations))
    for record, whole in zip(records, find_wholes(objects, classes), strict=True):
        if whole is not None:
            record[_PART_OF] = first + whole
    return records


def annotation_record(labelled: LabelledObject, segmentation: object = None) -> _Record:
    """Return the entry of an object, without ids."""
    y, x, h, w = labelled.region.box
    return {
        "category_id": labelled.region.class_id,
        **({} if segmentation is None else {"segmentation": segmentation}),
        "area": labelled.region.area,
        "bbox": [x, y, w, h],
        "iscrowd": 0,
        "score": labelled.score,
    }


def encode_masks(objects: Sequence[LabelledObject], size: tuple[int, int]) -> Sequence[object]:
    """Encode the objects in an image of `size` (height, width) as compressed RLE."""
    return encode_regions([entry.region for entry in objects], size)


def image_record(ref: ImageRef, size: tuple[int, int], base: str = "") -> _Record:
    """Return the `images` entry of an image of `size` (height, width), without its id."""
    height, width = size
    record = {"file_name": ref.name, "width": width, "height": height, "license": 1}
    return record | ({BASE_FIELD: base} if base else {})


def category_record(entry: LabelClass) -> _Record:
    # A missing supercategory defaults to the name: readers that group by supercategory treat "" as a group.
    return {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory or entry.name}


def encode_head(run: RunFacts, noun: str, categories: Iterable[_Record]) -> Iterator[bytes]:
    """Yield the start of a file: `info`, `licenses` and `categories`. The description calls an object `noun`."""
    info: _Record = {"description": f"Labels made by tipsseg; one {noun} per {_UNITS[run.files.instances]}."}
    info |= {key: run.info[key] for key in _INFO_KEYS if key in run.info}
    yield b'{\n"info": ' + json_bytes(info)
    yield b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}])
    yield from encode_section(b"categories", map(json_bytes, categories))


def image_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    """Yield the `images` entries: the first row of each image, with its id."""
    for number, image in enumerate(images, start=1):
        yield prepend(b'"id": %d' % number, rows(image)[0])


def _annotation_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    annotation = 0
    for number, image in enumerate(images, start=1):
        first = annotation + 1
        for row in rows(image)[1:]:
            annotation += 1
            part = _WHOLE.search(row)  # its value is the number of the whole in its image, from 0
            ids = b'"id": %d, "image_id": %d' % (annotation, number)
            yield prepend(ids, row if part is None else row[: part.start(1)] + b"%d}" % (first + int(part[1])))


# ---- reading ----


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


def _read_images(value: Mapping[str, Any], where: Path, names: ClassNames) -> Iterator[SourceImage]:
    with image_errors(where):
        categories = read_categories(value, names)
        info = value.get("info")
        label_studio = isinstance(info, dict) and info.get("contributor") == "Label Studio"
        for image, annotations in group_by_image(value):
            read = partial(_read_objects, annotations, image, categories, names, where, label_studio)
            # Label Studio also lists images that nobody submitted.
            yield SourceImage(image["file_name"], where, read, submitted=False)


def read_categories(value: Mapping[str, Any], names: ClassNames) -> Mapping[int, str]:
    """Return the class names of a COCO file by id, and declare them. Raise ValueError if ids are missing or not unique."""
    categories: dict[int, str] = {}
    for category in take(value, "categories", list):
        number = take(category, "id", int)
        if number in categories:
            raise ValueError(f"two categories have the id {number}")
        categories[number] = take(category, "name", str)
    names.declare(categories[number] for number in sorted(categories))
    return categories


def group_by_image(value: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Sequence[object]]]:
    """Return the images of a COCO file, each with its annotations. Raise ValueError if ids are missing, unknown or not unique."""
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
    label_studio: bool,
    size: Size,
) -> Objects:
    file = shorten(image["file_name"])
    with image_errors(where, f"image {file}"):
        sides = (image.get("height"), image.get("width"))
        # Label Studio does not know the size of images that nobody submitted. Of images that EXIF turns, it writes the size before
        # the turn, and corners of polygons, but not of boxes, as shares of that size.
        stored = sides if label_studio and sides == size[::-1] else size
        if annotations or sides[0] is not None:
            check_size(*sides, stored)

    def name_of(number: int, annotation: object) -> str:
        own = annotation.get("id") if isinstance(annotation, dict) else None
        return f"annotation {short(own)} ({file})"

    def read(annotation: object) -> Shape:
        category = take(annotation, "category_id", int)
        if category not in categories:
            raise ValueError(f"no category has the id {category}")
        return read_shape(annotation, names.id_of(categories[category]), size, stored)

    polygons = any(isinstance(each, dict) and isinstance(each.get("segmentation"), list) for each in annotations)
    written_as = "coco-polygon" if polygons else "coco"
    return read_objects(where, annotations, name_of, read, written_as, f"image {file}", base_of(image))


def read_shape(annotation: object, class_id: int, size: Size, stored: Size | None = None) -> Shape:
    """Read the pixels of an annotation. Raise ValueError if it is invalid, NoPixelsError if it has neither mask nor box.

    Args:
        annotation: The annotation.
        class_id: The class.
        size: (height, width) of the image in pixels.
        stored: The (height, width) that its polygons fill. None: `size`.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        shape = shape_from_rle(class_id, segmentation, size)
        if shape.mask.size:
            return shape
        segmentation = None
    if segmentation in (None, []):  # CVAT's rectangles, and objects that are too thin for a polygon or a resized mask
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
    height, width = stored or size
    scale = size[1] / width, size[0] / height  # of x and y
    return shape_from_polygons(class_id, [ring.reshape(-1, 2) * scale for ring in rings], size)
