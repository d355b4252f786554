"""COCO panoptic: one RGB PNG an image, whose colours are segment ids, and panoptic.json, which says what the segments are.

A segment is an object; its id is R + 256 G + 65536 B, 1, 2, ... in each image. Pixels of no object, be they background, ignored, or
objects below the least area, have id 0, "void".
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats import FORMATS, Rows, RunContext, Written, output_name
from tipsseg.formats.coco import Record, box, category_record, image_lines, image_record, write_head
from tipsseg.formats.image_file import write_image_file
from tipsseg.formats.listing import match, read_section, write_section
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import LabelClass, printable_path
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one segment per connected component.",
    "class": "Labels made by tipsseg; one segment per class and image.",
}
_IMAGE = re.compile(rb'\{"id": \d+, ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"image_id": \d+, ("file_name": .*\})')


def segment_colours(labels: ImageLabels) -> NDArray[np.uint8]:
    """The id of each pixel's segment, 1, 2, ... in the order of the objects and 0 elsewhere, as a colour: [H, W, 3]."""
    colours = np.zeros((*labels.label_map.size, 3), np.uint8)
    for number, each in enumerate(labels.objects, start=1):
        y, x, h, w = each.region.box
        colours[y : y + h, x : x + w][each.region.mask] = number % 256, number // 256 % 256, number // 65536
    return colours


def encode(colours: NDArray[np.uint8]) -> bytes:
    """A picture [H, W, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, format="PNG")
    return buffer.getvalue()


def annotation_record(labels: ImageLabels, file_name: str) -> Record:
    """The entry of `annotations` for one image, without its image's id; `file_name` is that of the PNG."""
    segments = [
        {
            "id": number,
            "category_id": each.region.class_id,
            "area": each.region.area,
            "bbox": box(each),
            "iscrowd": 0,
            "score": each.score,
        }
        for number, each in enumerate(labels.objects, start=1)
    ]
    return {"file_name": file_name, "segments_info": segments}


class PanopticWriter:
    """Writes the PNG of each image, and makes its rows: that of the image, then its annotation."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def write(self, labels: ImageLabels) -> Written:
        """Write the image's PNG; raises OutputError."""
        written = write_image_file(self._context, "panoptic", labels, encode(segment_colours(labels)))
        name = f"{printable_path(output_name(labels.ref.relative, self._context.files.names))}.png"
        rows = image_record(labels.ref, labels.label_map.size), annotation_record(labels, name)
        return replace(written, rows=tuple(json_bytes(record) for record in rows))


class PanopticFile:
    """panoptic.json."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["panoptic"].files[0]
        self._context = context

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The images in the file, see RowsFile."""
        for name, _ in self.read(images):
            yield name

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images in the file with their rows, see RowsFile."""
        with open_regular(self.path) as file, open_regular(self.path) as beside:
            pairs = zip_longest(read_section(file, b"images"), read_section(beside, b"annotations"), fillvalue=b"")
            for image, annotation in pairs:
                if not image or not annotation:
                    raise ValueError("not as many annotations as images")
                rows = tuple(b"{" + match(kind, line)[1] for kind, line in ((_IMAGE, image), (_ANNOTATION, annotation)))
                yield parse(rows[0])["file_name"], rows

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Join the rows into the file, ids in the order of `images`; raises OutputError."""
        categories = (self._category(each) for each in self._context.classes)
        with self._context.ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            write_head(target, self._context, _DESCRIPTION, categories)
            write_section(target, b"images", image_lines(images, rows))
            write_section(target, b"annotations", _annotations(images, rows))
            target.write(b"\n}\n")

    def _category(self, entry: LabelClass) -> Record:
        # What is one segment however many there are of it is stuff.
        thing = self._context.files.instances != "class"
        return {**category_record(entry), "isthing": int(thing), "color": list(entry.colour)}


def _annotations(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    for number, image in enumerate(images, start=1):
        yield b'{"image_id": %d, ' % number + rows(image)[1].removeprefix(b"{")


def create(context: RunContext) -> PanopticWriter:
    """The writer of format "panoptic"."""
    return PanopticWriter(context)


def run_files(context: RunContext) -> tuple[PanopticFile]:
    """The file of format "panoptic"."""
    return (PanopticFile(context),)
