"""COCO instances: annotations.json, one annotation a connected component, masks as compressed run-length codes.

Memory does not grow with the number of images: the records wait in a nameless temporary file in the output folder,
which the system drops when the program ends, however it ends. In memory stay three integers an image.
"""

from __future__ import annotations

import tempfile
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tipsseg.files import TEMPORARY_PREFIX, atomic_path, json_bytes, output_error
from tipsseg.records import ImageRef, LabelMap
from tipsseg.regions import components, encode_region
from tipsseg.writers import RunContext

FILE_NAME = "annotations.json"

Record = dict[str, object]

_DESCRIPTION = "Labels made by tipsseg; one annotation per connected component."
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")


def image_record(ref: ImageRef, size: tuple[int, int], index: int) -> Record:
    """The entry of `images` for the image at position `index` (from 0) of the input; `size` is (height, width)."""
    height, width = size
    return {
        "id": index + 1,
        "file_name": ref.relative.as_posix(),
        "width": width,
        "height": height,
        "license": 1,
    }


def annotation_records(label_map: LabelMap, index: int, min_area: int) -> list[Record]:
    """The entries of `annotations` for one image, without their ids, which are counted over the whole file.

    One a connected component of at least `min_area` pixels; `score` is the mean confidence over it.
    """
    records: list[Record] = []
    for region in components(label_map.labels, len(label_map.classes), min_area):
        y, x, h, w = region.box
        confidence = label_map.confidence[y : y + h, x : x + w][region.mask]
        records.append(
            {
                "image_id": index + 1,
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
    """Collects records and writes annotations.json at the end. `write` and `add` may be called from several threads."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._path = context.output / FILE_NAME
        self._lock = threading.Lock()
        self._indices = array("q")
        self._starts = array("q")
        self._counts = array("q")
        try:
            context.output.mkdir(parents=True, exist_ok=True)
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=context.output, prefix=TEMPORARY_PREFIX)  # noqa: SIM115
        except OSError as error:
            raise output_error(self._path, error) from error

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap, index: int) -> None:
        """Take the records of one image, in any order; raises OutputError."""
        self.add(
            index,
            image_record(ref, label_map.size, index),
            annotation_records(label_map, index, self._context.min_area),
        )

    def add(self, index: int, image: Mapping[str, object], annotations: Sequence[Mapping[str, object]]) -> None:
        """Take finished records, as `image_record` and `annotation_records` make them; raises OutputError."""
        lines = b"".join(json_bytes(record) + b"\n" for record in (image, *annotations))
        with self._lock:
            try:
                start = self._spool.tell()
                self._spool.write(lines)
            except OSError as error:
                raise output_error(self._path, error) from error
            self._indices.append(index)
            self._starts.append(start)
            self._counts.append(len(annotations))

    def close(self) -> list[Path]:
        """Join the records, in the order of the input, into annotations.json; raises OutputError."""
        try:
            with atomic_path(self._path) as temporary, temporary.open("wb") as target:
                target.write(b'{\n"info": ' + json_bytes(self._info()))
                target.write(b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}]))
                _write_list(target, b"categories", (json_bytes(record) for record in self._categories()))
                _write_list(target, b"images", self._images())
                _write_list(target, b"annotations", self._annotations())
                target.write(b"\n}\n")
        finally:
            self.abort()
        return [self._path]

    def abort(self) -> None:
        """Drop the temporary file."""
        with suppress(OSError):  # a full disk refuses the last buffer once more
            self._spool.close()

    def _info(self) -> Record:
        given = self._context.info
        return {"description": _DESCRIPTION} | {key: given[key] for key in _INFO_KEYS if key in given}

    def _categories(self) -> list[Record]:
        # A class without one is its own supercategory: readers that group by it take an empty one for a group.
        return [
            {"id": each.id, "name": each.name, "supercategory": each.supercategory or each.name}
            for each in self._context.classes
        ]

    def _entries(self) -> Iterator[int]:
        """Seek the spool to each image's lines, in the order of the input; yield how many annotations follow."""
        for entry in np.argsort(np.asarray(self._indices), kind="stable").tolist():
            self._spool.seek(self._starts[entry])
            yield self._counts[entry]

    def _images(self) -> Iterator[bytes]:
        for _ in self._entries():
            yield self._spool.readline().rstrip(b"\n")

    def _annotations(self) -> Iterator[bytes]:
        number = 0
        for count in self._entries():
            self._spool.readline()
            for _ in range(count):
                number += 1
                yield b'{"id": %d, ' % number + self._spool.readline().rstrip(b"\n").removeprefix(b"{")


def create(context: RunContext) -> CocoWriter:
    """The writer of format "coco"."""
    return CocoWriter(context)


def _write_list(target: IO[bytes], key: bytes, records: Iterable[bytes]) -> None:
    """One record a line, so that two runs can be compared line by line."""
    target.write(b',\n"' + key + b'": [')
    separator = b"\n"
    for record in records:
        target.write(separator + record)
        separator = b",\n"
    target.write(b"\n]" if separator == b",\n" else b"]")
