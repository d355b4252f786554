"""COCO panoptic: one RGB PNG per image, whose colours are segment ids, and panoptic.json, which says what the segments are.

A segment is an object; its id is R + 256 G + 65536 B, 1, 2, ... in each image. Pixels of no object, be they background, ignored, or
objects below the minimum area, have id 0, "void".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, output_name
from tipsseg.formats.coco import Record, box, category_record, head_pieces, image_lines, image_record
from tipsseg.formats.listing import match, read_section, section_pieces
from tipsseg.formats.png import png_bytes
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import LabelClass

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one segment per connected component.",
    "class": "Labels made by tipsseg; one segment per class and image.",
}
_IMAGE = re.compile(rb'\{"id": \d+, ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"image_id": \d+, ("file_name": .*\})')


class Panoptic(Format):
    name = "panoptic"
    description = "COCO panoptic: panoptic/<image>.png and panoptic.json"
    folder = "panoptic"
    suffix = ".png"
    files = ("panoptic.json",)
    has_rows = True
    needs_objects = True
    scores_objects = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        return png_bytes(Image.fromarray(segment_colours(image.objects, image.size)))

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the entry of `images`, then the entry of `annotations`, without the image's id."""
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
            for number, each in enumerate(image.objects, start=1)
        ]
        file_name = f"{printable_path(output_name(image.ref.relative, run.files.names))}.png"
        record = image_record(image.ref, image.size)
        return json_bytes(record), json_bytes({"file_name": file_name, "segments_info": segments})

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        # What is one segment however many there are of it is stuff.
        thing = int(run.files.instances != "class")
        yield from head_pieces(run, _DESCRIPTION, (_category(each, thing) for each in run.classes))
        yield from section_pieces(b"images", image_lines(images, rows))
        annotations = (
            b'{"image_id": %d, ' % number + rows(image)[1].removeprefix(b"{")
            for number, image in enumerate(images, start=1)
        )
        yield from section_pieces(b"annotations", annotations)
        yield b"\n}\n"

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        with open_regular(path) as file, open_regular(path) as beside:
            pairs = zip_longest(read_section(file, b"images"), read_section(beside, b"annotations"), fillvalue=b"")
            for image, annotation in pairs:
                if not image or not annotation:
                    raise ValueError("not as many annotations as images")
                rows = tuple(b"{" + match(kind, line)[1] for kind, line in ((_IMAGE, image), (_ANNOTATION, annotation)))
                yield parse(rows[0])["file_name"], rows


def segment_colours(objects: Sequence[LabelledObject], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the id of each pixel's segment, 1, 2, ... in the order of the objects and 0 elsewhere, as a colour: [H, W, 3]."""
    import numpy as np

    colours = np.zeros((*size, 3), np.uint8)
    for number, each in enumerate(objects, start=1):
        y, x, h, w = each.region.box
        colours[y : y + h, x : x + w][each.region.mask] = number % 256, number // 256 % 256, number // 65536
    return colours


def _category(entry: LabelClass, thing: int) -> Record:
    return {**category_record(entry), "isthing": thing, "color": list(entry.colour)}
