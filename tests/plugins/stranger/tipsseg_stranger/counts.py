"""A format of somebody else: the label of each pixel in lines of text, which people may edit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.records import ClassNames, PixelLabels, SourceImage, image_errors
from tipsseg.formats.source import Source


class Counts(Format):
    name = "counts"
    description = "lines of label ids: counts/<image>.counts"
    folder = "counts"
    suffix = ".counts"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return "".join(" ".join(map(str, row)) + "\n" for row in image.labels.tolist()).encode()

    def detect(self, source: Source) -> bool:
        return bool(source.find_suffix(self.suffix))

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        for name in source.find_suffix(self.suffix):
            yield SourceImage(name.removesuffix(self.suffix), source.display_path(name), partial(_read, source, name))


def _read(source: Source, name: str, size: tuple[int, int]) -> PixelLabels:
    with image_errors(source.display_path(name)):
        return PixelLabels(np.array([line.split() for line in source.read(name).splitlines()], np.uint8))
