"""A format of somebody else: the label of each pixel in lines of text, which people may edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.records import ClassNames, PixelLabels, SourceImage, image_errors
from tipsseg.formats.source import Source

SEPARATORS = {"space": " ", "comma": ","}


def _separator(text: str) -> str:
    if text not in SEPARATORS:
        raise ValueError(f"write one of {', '.join(SEPARATORS)}")
    return SEPARATORS[text]


class Counts(Format):
    name = "counts"
    description = "lines of label ids: counts/<image>.counts"
    folder = "counts"
    suffix = ".counts"
    options: ClassVar[Mapping[str, Callable[[str], Any]]] = {"separator": _separator, "width": int}

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        values = self.values_of(run.files)
        separator, width = values.get("separator", " "), values.get("width", 1)
        rows = ([f"{each:{width}}" for each in row] for row in image.labels.tolist())
        return "".join(separator.join(row) + "\n" for row in rows).encode()

    def detect(self, source: Source) -> bool:
        return bool(source.find_suffix(self.suffix))

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        for name in source.find_suffix(self.suffix):
            yield SourceImage(name.removesuffix(self.suffix), source.display_path(name), partial(_read, source, name))


def _read(source: Source, name: str, size: tuple[int, int]) -> PixelLabels:
    with image_errors(source.display_path(name)):
        rows = source.read(name).replace(b",", b" ").splitlines()
        return PixelLabels(np.array([row.split() for row in rows], np.uint8))
