"""COCO instances: annotations.json, masks as compressed run-length codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO

from tipsseg.formats import FORMATS, Rows, RunContext, Written, coco_file
from tipsseg.formats.listing import write_section
from tipsseg.regions.components import encode_region
from tipsseg.regions.objects import ImageLabels, LabelledObject
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.files import json_bytes

FILE_NAME = "annotations.json"

Record = dict[str, object]

#: The `segmentation` of an object in an image of a size (height, width).
Segmentation = Callable[[LabelledObject, tuple[int, int]], object]

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one annotation per connected component.",
    "class": "Labels made by tipsseg; one annotation per class and image.",
}
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")


def image_record(ref: ImageRef, size: tuple[int, int]) -> Record:
    """The entry of `images` for an image of `size` (height, width), without its id, which is its place in the file."""
    height, width = size
    return {"file_name": ref.name, "width": width, "height": height, "license": 1}


def annotation_records(labels: ImageLabels, segmentation: Segmentation) -> list[Record]:
    """The entries of `annotations` for one image, without the ids, which are counted over the whole file: one an object."""
    return [
        {
            "category_id": each.region.class_id,
            "segmentation": segmentation(each, labels.label_map.size),
            "area": each.region.area,
            "bbox": box(each),
            "iscrowd": 0,
            "score": each.score,
        }
        for each in labels.objects
    ]


def box(labelled: LabelledObject) -> list[int]:
    """The smallest box around an object, [x, y, w, h]."""
    y, x, h, w = labelled.region.box
    return [x, y, w, h]


def rle(labelled: LabelledObject, size: tuple[int, int]) -> object:
    """An object's run-length code."""
    return encode_region(labelled.region, size)


def category_record(entry: LabelClass) -> Record:
    """The entry of `categories` for a class."""
    # A class without one is its own supercategory: readers that group by it take an empty one for a group.
    return {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory or entry.name}


def write_head(
    target: IO[bytes], context: RunContext, description: Mapping[str, str], categories: Iterable[Record]
) -> None:
    """Write the beginning of a file: `info` with the description for the run's instances, `licenses`, `categories`."""
    info: Record = {"description": description[context.files.instances]}
    info |= {key: context.info[key] for key in _INFO_KEYS if key in context.info}
    target.write(b'{\n"info": ' + json_bytes(info))
    target.write(b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}]))
    write_section(target, b"categories", (json_bytes(record) for record in categories))


class CocoWriter:
    """Makes the rows of each image: that of the image, then its annotations."""

    def __init__(self, segmentation: Segmentation) -> None:
        self._segmentation = segmentation

    def write(self, labels: ImageLabels) -> Written:
        """The rows of one image."""
        rows = (
            image_record(labels.ref, labels.label_map.size),
            *annotation_records(labels, self._segmentation),
        )
        return Written(rows=tuple(json_bytes(record) for record in rows))


class CocoRunFile:
    """The file of a COCO format with annotations one by one."""

    def __init__(self, context: RunContext, name: str) -> None:
        """`name` is the format's."""
        self.path = context.state / FORMATS[name].files[0]
        self._context = context

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The images in the file, see RowsFile."""
        return coco_file.names(self.path)

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images in the file with their rows, see RowsFile."""
        return coco_file.read(self.path)

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Join the rows into the file, ids in the order of `images`; raises OutputError."""
        with self._context.ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            write_head(target, self._context, _DESCRIPTION, map(category_record, self._context.classes))
            write_section(target, b"images", image_lines(images, rows))
            write_section(target, b"annotations", _annotations(images, rows))
            target.write(b"\n}\n")


def image_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    """The entries of `images`, of the first record of each image."""
    for number, image in enumerate(images, start=1):
        yield b'{"id": %d, ' % number + rows(image)[0].removeprefix(b"{")


def _annotations(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    annotation = 0
    for number, image in enumerate(images, start=1):
        for record in rows(image)[1:]:
            annotation += 1
            yield b'{"id": %d, "image_id": %d, ' % (annotation, number) + record.removeprefix(b"{")


def create(context: RunContext) -> CocoWriter:
    """The writer of format "coco"."""
    return CocoWriter(rle)


def run_files(context: RunContext) -> tuple[CocoRunFile]:
    """The file of format "coco"."""
    return (CocoRunFile(context, "coco"),)
