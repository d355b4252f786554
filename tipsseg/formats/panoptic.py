"""COCO panoptic: one RGB PNG per image, whose colours are segment ids, and panoptic.json, which says what the segments are.

A segment is an object; its id is R + 256 G + 65536 B, 1, 2, ... in each image. Pixels of no object, be they background, ignored, or
objects below the minimum area, have id 0, "void".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RowsFile, RunContext, output_name
from tipsseg.formats.coco import Record, box, category_record, head_pieces, image_lines, image_record
from tipsseg.formats.listing import match, read_section, section_pieces
from tipsseg.formats.png import png_bytes
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import LabelClass

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one segment per connected component.",
    "class": "Labels made by tipsseg; one segment per class and image.",
}
_IMAGE = re.compile(rb'\{"id": \d+, ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"image_id": \d+, ("file_name": .*\})')


class Panoptic(Format):
    """The format "panoptic"."""

    name = "panoptic"
    description = "COCO panoptic: panoptic/<image>.png and panoptic.json"
    folder = "panoptic"
    suffix = ".png"
    files = ("panoptic.json",)
    rows = True
    scores = True

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """The ids of the segments, as the colours of a PNG."""
        from PIL import Image

        return png_bytes(Image.fromarray(segment_colours(labels)))

    def image_rows(self, labels: ImageLabels, context: RunContext) -> Rows:
        """The entry of `images`, then the entry of `annotations`, without the image's id."""
        from tipsseg.types import printable_path

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
        file_name = f"{printable_path(output_name(labels.ref.relative, context.files.names))}.png"
        image = image_record(labels.ref, labels.label_map.size)
        return json_bytes(image), json_bytes({"file_name": file_name, "segments_info": segments})

    def run_files(self, context: RunContext) -> tuple[RowsFile]:
        """panoptic.json."""
        return (RowsFile(context, self.files[0], partial(_pieces, context), _read),)


def segment_colours(labels: ImageLabels) -> NDArray[np.uint8]:
    """The id of each pixel's segment, 1, 2, ... in the order of the objects and 0 elsewhere, as a colour: [H, W, 3]."""
    import numpy as np

    colours = np.zeros((*labels.label_map.size, 3), np.uint8)
    for number, each in enumerate(labels.objects, start=1):
        y, x, h, w = each.region.box
        colours[y : y + h, x : x + w][each.region.mask] = number % 256, number // 256 % 256, number // 65536
    return colours


def _pieces(context: RunContext, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    # What is one segment however many there are of it is stuff.
    thing = int(context.files.instances != "class")
    yield from head_pieces(context, _DESCRIPTION, (_category(each, thing) for each in context.classes))
    yield from section_pieces(b"images", image_lines(images, rows))
    annotations = (
        b'{"image_id": %d, ' % number + rows(image)[1].removeprefix(b"{")
        for number, image in enumerate(images, start=1)
    )
    yield from section_pieces(b"annotations", annotations)
    yield b"\n}\n"


def _category(entry: LabelClass, thing: int) -> Record:
    return {**category_record(entry), "isthing": thing, "color": list(entry.colour)}


def _read(path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
    with open_regular(path) as file, open_regular(path) as beside:
        pairs = zip_longest(read_section(file, b"images"), read_section(beside, b"annotations"), fillvalue=b"")
        for image, annotation in pairs:
            if not image or not annotation:
                raise ValueError("not as many annotations as images")
            rows = tuple(b"{" + match(kind, line)[1] for kind, line in ((_IMAGE, image), (_ANNOTATION, annotation)))
            yield parse(rows[0])["file_name"], rows
