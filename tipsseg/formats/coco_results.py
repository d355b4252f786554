"""COCO results: results.json, the bare list that COCO's `loadRes` takes.

Image ids are those of an annotations.json of the same images. Each result says the name of its image too, which readers pass over:
an image without objects is not in such a file, and this is how it is read back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tipsseg.formats.base import Format, ImageLabels, Rows, RowsFile, RunContext
from tipsseg.formats.coco import codes
from tipsseg.formats.listing import list_pieces, match, read_rows
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_RESULT = re.compile(rb'\{"image_id": \d+, (.*"file_name": (".*")\})')


class CocoResults(Format):
    """The format "coco-results"."""

    name = "coco-results"
    description = "COCO results: results.json, the bare list that loadRes takes"
    files = ("results.json",)
    rows = True
    scores = True

    def image_rows(self, labels: ImageLabels, context: RunContext) -> Rows:
        """One row for each object."""
        segmentations = codes(labels.objects, labels.label_map.size)
        return tuple(
            json_bytes(
                {
                    "category_id": each.region.class_id,
                    "segmentation": segmentation,
                    "score": each.score,
                    "file_name": labels.ref.name,
                }
            )
            for each, segmentation in zip(labels.objects, segmentations, strict=True)
        )

    def run_files(self, context: RunContext) -> tuple[RowsFile]:
        """results.json."""
        return (RowsFile(context, self.files[0], _pieces, _read, _names),)


def _pieces(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    yield from list_pieces(
        b'{"image_id": %d, ' % number + row.removeprefix(b"{")
        for number, image in enumerate(images, start=1)
        for row in rows(image)
    )
    yield b"\n"


def _names(path: Path, images: Sequence[str]) -> Iterator[str]:
    """The images that the file was written with: which of them have no objects it does not say."""
    with open_regular(path):
        yield from images


def _read(path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
    left = dict.fromkeys(images)
    with open_regular(path) as file:
        results = (match(_RESULT, line) for line in read_rows(file))
        for name, own in groupby(results, key=lambda found: found[2]):
            image = parse(name)
            left.pop(image, None)
            yield image, tuple(b"{" + each[1] for each in own)
    for image in left:
        yield image, ()
