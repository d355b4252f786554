"""A table of the labels as CSV: labels.csv, with a row per class and image.

The first row of an image is its background, so that images without objects are in the table too. A row of ignored pixels follows if
there are any.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.regions.objects import count_pixels
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.json import json_bytes, parse

_HEADER = ("image", "class_id", "class", "pixels", "share", "objects", "confidence")


class Csv(Format):
    name = "csv"
    description = "a table of pixels, shares, objects and confidences per class and image: labels.csv"
    files = ("labels.csv",)
    needs = frozenset({"objects"})

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return a JSON list per row of the table. The confidence is the mean over the pixels of the objects."""
        counts = count_pixels(image.labels, run.classes)
        names = {BACKGROUND: "background", ignore_id(len(run.classes)): "ignored"}
        names |= {entry.id: entry.name for entry in run.classes}
        rows = []
        for label in dict.fromkeys((BACKGROUND, *np.flatnonzero(counts).tolist())):
            pixels = int(counts[label])
            own = [(entry.region.area, entry.score) for entry in image.objects if entry.region.class_id == label]
            area = sum(area for area, _ in own)
            confidence = round(sum(area * score for area, score in own) / area, 4) if area else None
            share = round(pixels / image.labels.size, 6)
            rows.append([image.ref.name, label, names[label], pixels, share, len(own), confidence])
        return tuple(map(json_bytes, rows))

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        yield _line(_HEADER)
        for image in images:
            for row in rows(image):
                yield _line(parse(row))


def _line(values: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode("utf-8", "backslashreplace")
