"""COCO instances: annotations.json with masks as compressed RLE, annotations-polygon.json with polygons.

Both files have one record per line, with annotations in the order of the images, so they can be written, read and checked line by
line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.util.files import json_bytes
from tipsseg.util.json_lists import encode_section, prepend

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import ImageRef, LabelClass

FILE_NAME = "annotations.json"

Record = dict[str, object]

_UNITS = {"component": "connected component", "class": "class and image"}
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")


class CocoInstances(Format):
    """The base class for COCO instances. Subclasses encode the segmentations."""

    has_rows = True
    needs_objects = True
    overlaps = True

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        yield from encode_head(run, "annotation", map(category_record, run.classes))
        yield from encode_section(b"images", image_lines(images, rows))
        yield from encode_section(b"annotations", _annotation_lines(images, rows))
        yield b"\n}\n"


class Coco(CocoInstances):
    name = "coco"
    description = "COCO instances with RLE masks: annotations.json"
    files = (FILE_NAME,)

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return _encode_rows(image, encode_masks(image.objects, image.size))


class CocoPolygon(CocoInstances):
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
        return _encode_rows(image, polygons)


def _encode_rows(image: ImageLabels, segmentations: Iterable[object]) -> Rows:
    """Return the `images` entry, then the `annotations` entries. `run_file` adds the ids, which are unique in the file."""
    annotations = map(annotation_record, image.objects, segmentations)
    return tuple(json_bytes(record) for record in (image_record(image.ref, image.size), *annotations))


def annotation_record(labelled: LabelledObject, segmentation: object) -> Record:
    """Return the `annotations` entry of an object, without ids."""
    return {
        "category_id": labelled.region.class_id,
        "segmentation": segmentation,
        "area": labelled.region.area,
        "bbox": coco_box(labelled),
        "iscrowd": 0,
        "score": labelled.score,
    }


def encode_masks(objects: Sequence[LabelledObject], size: tuple[int, int]) -> Sequence[object]:
    """Encode the objects in an image of `size` (height, width) as compressed RLE."""
    from tipsseg.regions.components import encode_regions

    return encode_regions([entry.region for entry in objects], size)


def image_record(ref: ImageRef, size: tuple[int, int]) -> Record:
    """Return the `images` entry of an image of `size` (height, width), without its id."""
    height, width = size
    return {"file_name": ref.name, "width": width, "height": height, "license": 1}


def coco_box(labelled: LabelledObject) -> list[int]:
    """Return the bounding box of an object as [x, y, w, h]."""
    y, x, h, w = labelled.region.box
    return [x, y, w, h]


def category_record(entry: LabelClass) -> Record:
    # A missing supercategory defaults to the name: readers that group by supercategory treat "" as a group.
    return {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory or entry.name}


def encode_head(run: RunFacts, noun: str, categories: Iterable[Record]) -> Iterator[bytes]:
    """Yield the start of a file: `info`, `licenses` and `categories`. The description calls an object `noun`."""
    info: Record = {"description": f"Labels made by tipsseg; one {noun} per {_UNITS[run.files.instances]}."}
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
        for row in rows(image)[1:]:
            annotation += 1
            yield prepend(b'"id": %d, "image_id": %d' % (annotation, number), row)
