"""Frozen records that cross module borders. No torch here: everything that follows a LabelMap is numpy.

Sizes are always (height, width), in pixels. Colours are (red, green, blue), 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from numpy.typing import NDArray

LabelArray = NDArray[np.uint8] | NDArray[np.uint16]
ConfidenceArray = NDArray[np.float32] | NDArray[np.float16]
Colour = tuple[int, int, int]

#: Label id of pixels that belong to none of the classes.
BACKGROUND = 0

#: More classes need 16 bits a pixel.
MAX_CLASSES_8_BIT = 254


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a model as weights.lock pins it; `size` in bytes; None where the lock does not know."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of weights.lock.

    `repository` and the 40-hex `revision` name a hub snapshot; for a model that ships inside the package they are None
    and `embedded` is its folder, relative to the package.
    """

    id: str
    licence: str
    parameters: int
    files: tuple[LockedFile, ...]
    repository: str | None = None
    revision: str | None = None
    embedded: str | None = None


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image to be labelled.

    path         where it is
    relative     its path relative to the image root (posix, names the outputs)
    replaceable  sha256 of contents that its files in the output folder may have when they are replaced: those of an earlier run
    linked       the formats that it was in after that run, so that a link to it there is that run's
    former       sha256 of what it was in that run, of which there may be copies in place of links
    """

    path: Path
    relative: PurePosixPath
    replaceable: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    linked: tuple[str, ...] = field(default=(), compare=False, repr=False)
    former: str | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The relative path as text that can be printed: bytes of it that are no UTF-8 are spelled out. Its key in all records."""
        return printable_path(self.relative)


def printable_path(path: PurePath) -> str:
    """A path as posix text that can be printed and written into JSON: bytes of it that are no UTF-8 are spelled out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def name_order(name: str) -> tuple[str, ...]:
    """The sort key of images by their names: folder by folder, in code point order."""
    return tuple(name.split("/"))


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of the output: `id` 1..N in the order given, equal to the COCO category id.

    synonyms        further phrases that stand for it
    supercategory   its own name where none was given
    min_confidence  replaces that of the options for this class; None: it does not
    """

    id: int
    name: str
    colour: Colour
    synonyms: tuple[str, ...] = ()
    supercategory: str = ""
    min_confidence: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TopClasses:
    """The best K classes of each patch of an image, the best first.

    ids     [K, h, w], as in the label map; 0 is the background
    scores  [K, h, w] float16 in [0, 1]: softmax(score / temperature) over the classes and the background, before any refinement

    The h x w patches divide the image as the model sees it, resized and in one piece.
    """

    ids: LabelArray
    scores: NDArray[np.float16]


def ignore_id(number_of_classes: int) -> int:
    """The label id of low-confidence pixels: 255 up to 254 classes, 65535 above."""
    return 255 if number_of_classes <= MAX_CLASSES_8_BIT else 65535


def label_dtype(number_of_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype that holds every label id: uint8 up to 254 classes, uint16 above."""
    return np.uint8 if number_of_classes <= MAX_CLASSES_8_BIT else np.uint16
