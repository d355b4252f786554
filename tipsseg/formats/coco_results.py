"""COCO results: results.json, the bare list that COCO's `loadRes` takes.

Image ids are those of an annotations.json of the same images. Each result says the name of its image too, which readers pass over:
an image without objects is not in such a file, and this is how it is read back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from tipsseg.formats import FORMATS, Rows, RunContext, Written
from tipsseg.formats.listing import match, read_records, write_rows
from tipsseg.regions.components import encode_region
from tipsseg.regions.objects import ImageLabels
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_RESULT = re.compile(rb'\{"image_id": \d+, (.*"file_name": (".*")\})')


class CocoResultsWriter:
    """Makes the rows of each image: one an object."""

    def write(self, labels: ImageLabels) -> Written:
        """The rows of one image."""
        return Written(
            rows=tuple(
                json_bytes(
                    {
                        "category_id": each.region.class_id,
                        "segmentation": encode_region(each.region, labels.label_map.size),
                        "score": each.score,
                        "file_name": labels.ref.name,
                    }
                )
                for each in labels.objects
            )
        )


class CocoResultsFile:
    """results.json."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["coco-results"].files[0]
        self._ownership = context.ownership

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The images that it was written with, see RowsFile: which of them have no objects it does not say."""
        with open_regular(self.path):
            yield from images

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Those images with their rows, and others that it may have; see RowsFile."""
        left = dict.fromkeys(images)
        with open_regular(self.path) as file:
            results = (match(_RESULT, line) for line in read_records(file))
            for name, own in groupby(results, key=lambda found: found[2]):
                image = parse(name)
                left.pop(image, None)
                yield image, tuple(b"{" + each[1] for each in own)
        for image in left:
            yield image, ()

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the rows of all images in one list; raises OutputError."""
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            write_rows(target, _results(images, rows))
            target.write(b"\n")


def _results(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    for number, image in enumerate(images, start=1):
        for record in rows(image):
            yield b'{"image_id": %d, ' % number + record.removeprefix(b"{")


def create(context: RunContext) -> CocoResultsWriter:
    """The writer of format "coco-results"."""
    return CocoResultsWriter()


def run_files(context: RunContext) -> tuple[CocoResultsFile]:
    """The file of format "coco-results"."""
    return (CocoResultsFile(context),)
