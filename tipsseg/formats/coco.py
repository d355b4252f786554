"""COCO instances: annotations.json, masks as compressed run-length codes.

The file has one record a line, annotations in the order of their images, so that it can be written, read and checked line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, StoredImage
from tipsseg.formats.listing import match, read_section, section_pieces
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse, take

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import ImageRef, LabelArray, LabelClass

FILE_NAME = "annotations.json"

Record = dict[str, object]

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one annotation per connected component.",
    "class": "Labels made by tipsseg; one annotation per class and image.",
}
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")
_IMAGE = re.compile(rb'\{"id": (\d+), ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"id": (\d+), "image_id": (\d+), (.*\})')


class CocoInstances(Format):
    """A format that is laid out as annotations.json."""

    has_rows = True
    needs_objects = True
    scores_objects = True

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        yield from head_pieces(run, _DESCRIPTION, map(category_record, run.classes))
        yield from section_pieces(b"images", image_lines(images, rows))
        yield from section_pieces(b"annotations", _annotation_lines(images, rows))
        yield b"\n}\n"

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        with open_regular(path) as file, open_regular(path) as beside:
            annotations = (match(_ANNOTATION, line) for line in read_section(beside, b"annotations"))
            grouped = groupby(annotations, key=lambda found: found[2])
            waiting = next(grouped, None)
            for line in read_section(file, b"images"):
                image = match(_IMAGE, line)
                record, own = b"{" + image[2], []
                if waiting is not None and waiting[0] == image[1]:
                    own = [b"{" + each[3] for each in waiting[1]]
                    waiting = next(grouped, None)
                yield _file_name(record), (record, *own)
            if waiting is not None:
                raise ValueError(f"annotations of an image {int(waiting[0])} that is not there, or not in its place")


class Coco(CocoInstances):
    name = "coco"
    description = "COCO instances: annotations.json, masks as run-length codes"
    files = (FILE_NAME,)
    labels = "objects"

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return annotated_rows(image, codes(image.objects, image.size))

    def labels_of_rows(self, image: StoredImage, rows: Rows) -> LabelArray:
        import numpy as np

        from tipsseg.regions.shapes import shape_from_rle
        from tipsseg.types import label_dtype

        labels = np.zeros(image.size, label_dtype(len(image.classes)))
        for annotation in map(parse, rows[1:]):
            class_id = take(annotation, "category_id", int)
            if class_id not in image.classes:
                raise ValueError(f"an object of a class {class_id} that there is not")
            shape = shape_from_rle(class_id, take(annotation, "segmentation", dict), image.size)
            labels[shape.place][shape.mask] = class_id
        return labels  # type: ignore[return-value]


# ---- writing ----


def annotated_rows(image: ImageLabels, segmentations: Iterable[object]) -> Rows:
    """Return the entry of `images` for an image, then its entries of `annotations`; ids are counted over the file, later."""
    annotations = map(annotation_record, image.objects, segmentations)
    return tuple(json_bytes(record) for record in (image_record(image.ref, image.size), *annotations))


def annotation_record(labelled: LabelledObject, segmentation: object) -> Record:
    """Return the entry of `annotations` for an object, without its ids."""
    return {
        "category_id": labelled.region.class_id,
        "segmentation": segmentation,
        "area": labelled.region.area,
        "bbox": box(labelled),
        "iscrowd": 0,
        "score": labelled.score,
    }


def codes(objects: Sequence[LabelledObject], size: tuple[int, int]) -> Sequence[object]:
    """Return the pixels of objects in an image of `size` (height, width) as compressed run-length codes."""
    from tipsseg.regions.components import encode_regions

    return encode_regions([each.region for each in objects], size)


def image_record(ref: ImageRef, size: tuple[int, int]) -> Record:
    """Return the entry of `images` for an image of `size` (height, width), without its id, which is its place in the file."""
    height, width = size
    return {"file_name": ref.name, "width": width, "height": height, "license": 1}


def box(labelled: LabelledObject) -> list[int]:
    """Return the smallest box around an object, [x, y, w, h]."""
    y, x, h, w = labelled.region.box
    return [x, y, w, h]


def category_record(entry: LabelClass) -> Record:
    """Return the entry of `categories` for a class."""
    # A class without one is its own supercategory: readers that group by it take an empty one for a group.
    return {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory or entry.name}


def head_pieces(run: RunFacts, description: Mapping[str, str], categories: Iterable[Record]) -> Iterator[bytes]:
    """Yield the beginning of a file: `info` with the description for the run's instances, `licenses`, `categories`."""
    info: Record = {"description": description[run.files.instances]}
    info |= {key: run.info[key] for key in _INFO_KEYS if key in run.info}
    yield b'{\n"info": ' + json_bytes(info)
    yield b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}])
    yield from section_pieces(b"categories", map(json_bytes, categories))


def image_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    """Yield the entries of `images`, from the first row of each image."""
    for number, image in enumerate(images, start=1):
        yield b'{"id": %d, ' % number + rows(image)[0].removeprefix(b"{")


def _annotation_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    annotation = 0
    for number, image in enumerate(images, start=1):
        for row in rows(image)[1:]:
            annotation += 1
            yield b'{"id": %d, "image_id": %d, ' % (annotation, number) + row.removeprefix(b"{")


# ---- reading back: only as it was written, anything else is a ValueError ----


def _file_name(record: bytes) -> str:
    name = parse(record)["file_name"]
    if not isinstance(name, str):
        raise ValueError("a file name that is no text")
    return name
