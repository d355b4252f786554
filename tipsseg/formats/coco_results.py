"""COCO results: results.json, the plain list that COCO's `loadRes` loads.

Image ids match those in an annotations.json for the same images. Every result also has a `file_name`, which other readers ignore:
tipsseg needs it to read the file back, because images without objects have no results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.formats.coco import encode_masks
from tipsseg.util.files import json_bytes
from tipsseg.util.json_lists import encode_list, prepend


class CocoResults(Format):
    name = "coco-results"
    description = "COCO results, the list that loadRes reads: results.json"
    files = ("results.json",)
    has_rows = True
    needs_objects = True
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
