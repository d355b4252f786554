"""COCO instances: annotations.json, one annotation a connected component, masks as compressed run-length codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tipsseg.files import atomic_path, json_bytes
from tipsseg.records import ImageRef, LabelMap
from tipsseg.regions import components, encode_region
from tipsseg.writers import Records, RunContext, Written, coco_file

FILE_NAME = "annotations.json"

Record = dict[str, object]

_DESCRIPTION = "Labels made by tipsseg; one annotation per connected component."
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")


def image_record(ref: ImageRef, size: tuple[int, int]) -> Record:
    """The entry of `images` for an image of `size` (height, width), without its id, which is its place in the file."""
    height, width = size
    return {"file_name": ref.name, "width": width, "height": height, "license": 1}


def annotation_records(label_map: LabelMap, min_area: int) -> list[Record]:
    """The entries of `annotations` for one image, without the ids, which are counted over the whole file.

    One a connected component of at least `min_area` pixels; `score` is the mean confidence over it.
    """
    records: list[Record] = []
    for region in components(label_map.labels, len(label_map.classes), min_area):
        y, x, h, w = region.box
        confidence = label_map.confidence[y : y + h, x : x + w][region.mask]
        records.append(
            {
                "category_id": region.class_id,
                "segmentation": encode_region(region, label_map.size),
                "area": region.area,
                "bbox": [x, y, w, h],
                "iscrowd": 0,
                "score": round(float(confidence.mean(dtype=np.float64)), 4),
            }
        )
    return records


class CocoWriter:
    """Makes the records of each image: that of the image, then its annotations."""

    def __init__(self, context: RunContext) -> None:
        self._min_area = context.min_area

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap) -> Written:
        """The records of one image."""
        records = (image_record(ref, label_map.size), *annotation_records(label_map, self._min_area))
        return Written(records=tuple(json_bytes(record) for record in records))


class CocoRunFile:
    """annotations.json."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.records / FILE_NAME
        self._context = context

    def names(self) -> Iterator[str]:
        """The images in the file, see RunFile."""
        return coco_file.names(self.path)

    def read(self) -> Iterator[tuple[str, Records]]:
        """The images in the file with their records, see RunFile."""
        return coco_file.read(self.path)

    def write(self, images: Sequence[str], records: Callable[[str], Records]) -> None:
        """Join the records into the file, ids in the order of `images`; raises OutputError."""
        with atomic_path(self.path) as temporary, temporary.open("wb") as target:
            target.write(b'{\n"info": ' + json_bytes(self._info()))
            target.write(b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}]))
            _write_list(target, b"categories", (json_bytes(record) for record in self._categories()))
            _write_list(target, b"images", _images(images, records))
            _write_list(target, b"annotations", _annotations(images, records))
            target.write(b"\n}\n")

    def _info(self) -> Record:
        given = self._context.info
        return {"description": _DESCRIPTION} | {key: given[key] for key in _INFO_KEYS if key in given}

    def _categories(self) -> list[Record]:
        # A class without one is its own supercategory: readers that group by it take an empty one for a group.
        return [
            {"id": each.id, "name": each.name, "supercategory": each.supercategory or each.name}
            for each in self._context.classes
        ]


def create(context: RunContext) -> CocoWriter:
    """The writer of format "coco"."""
    return CocoWriter(context)


def run_file(context: RunContext) -> CocoRunFile:
    """The file of format "coco"."""
    return CocoRunFile(context)


def _images(images: Sequence[str], records: Callable[[str], Records]) -> Iterator[bytes]:
    for number, image in enumerate(images, start=1):
        yield b'{"id": %d, ' % number + records(image)[0].removeprefix(b"{")


def _annotations(images: Sequence[str], records: Callable[[str], Records]) -> Iterator[bytes]:
    annotation = 0
    for number, image in enumerate(images, start=1):
        for record in records(image)[1:]:
            annotation += 1
            yield b'{"id": %d, "image_id": %d, ' % (annotation, number) + record.removeprefix(b"{")


def _write_list(target: IO[bytes], key: bytes, records: Iterable[bytes]) -> None:
    """One record a line, so that two runs can be compared line by line, and `coco_file` reads without holding the file."""
    target.write(b',\n"' + key + b'": [')
    separator = b"\n"
    for record in records:
        target.write(separator + record)
        separator = b",\n"
    target.write(b"\n]" if separator == b",\n" else b"]")
