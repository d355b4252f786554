"""COCO results: results.json, the bare list that COCO's `loadRes` takes.

Image ids are those of an annotations.json of the same images. Each result says the name of its image too, which readers pass over:
an image without objects is not in such a file, and this is how it is read back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.formats.coco import codes
from tipsseg.formats.listing import list_pieces, match, read_list
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_RESULT = re.compile(rb'\{"image_id": \d+, (.*"file_name": (".*")\})')


class CocoResults(Format):
    name = "coco-results"
    description = "COCO results: results.json, the bare list that loadRes takes"
    files = ("results.json",)
    has_rows = True
    needs_objects = True
    scores_objects = True

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return tuple(
            json_bytes(
                {
                    "category_id": each.region.class_id,
                    "segmentation": segmentation,
                    "score": each.score,
                    "file_name": image.ref.name,
                }
            )
            for each, segmentation in zip(image.objects, codes(image.objects, image.size), strict=True)
        )

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        results = (
            b'{"image_id": %d, ' % number + row.removeprefix(b"{")
            for number, image in enumerate(images, start=1)
            for row in rows(image)
        )
        return chain(list_pieces(results), (b"\n",))

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Yield the images with their rows, see Format; an image without objects has none."""
        left = dict.fromkeys(images)
        with open_regular(path) as file:
            results = (match(_RESULT, line) for line in read_list(file))
            for name, own in groupby(results, key=lambda found: found[2]):
                image = parse(name)
                left.pop(image, None)
                yield image, tuple(b"{" + each[1] for each in own)
        for image in left:
            yield image, ()
