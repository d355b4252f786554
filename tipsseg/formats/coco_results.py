"""COCO results: results.json, the plain list that COCO's `loadRes` loads.

Image ids match those in an annotations.json for the same images. Every result also has a `file_name`, which other readers ignore:
tipsseg needs it to read the file back, because images without objects have no results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.formats.coco import encode_masks
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_lists import encode_list, match_row, prepend, read_list
from tipsseg.util.json_values import parse

_RESULT = re.compile(rb'\{"image_id": \d+, (.*"file_name": (".*")\})')


class CocoResults(Format):
    name = "coco-results"
    description = "COCO results, the list that loadRes reads: results.json"
    files = ("results.json",)
    has_rows = True
    needs_objects = True
    scores_objects = True
    overlaps = True

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return tuple(
            json_bytes(
                {
                    "category_id": entry.region.class_id,
                    "segmentation": segmentation,
                    "score": entry.score,
                    "file_name": image.ref.name,
                }
            )
            for entry, segmentation in zip(image.objects, encode_masks(image.objects, image.size), strict=True)
        )

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        results = (
            prepend(b'"image_id": %d' % number, row)
            for number, image in enumerate(images, start=1)
            for row in rows(image)
        )
        return chain(encode_list(results), (b"\n",))

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Yield the images in the file with their rows, then the remaining `images` without rows."""
        absent = dict.fromkeys(images)
        with open_regular(path) as file:
            results = (match_row(_RESULT, line) for line in read_list(file))
            for name, own in groupby(results, key=lambda match: match[2]):
                image = parse(name)
                absent.pop(image, None)
                yield image, tuple(b"{" + match[1] for match in own)
        for image in absent:
            yield image, ()
