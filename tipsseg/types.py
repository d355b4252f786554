"""Frozen records that cross module borders. No torch here: everything that follows a LabelMap is numpy.

Sizes are always (height, width), in pixels. Colours are (red, green, blue), 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: How the model sees less of an image than is in its file: nearly black, the first page alone, or squeezed.
Remark = Literal["dark", "pages", "squeezed"]

LabelArray = NDArray[np.uint8] | NDArray[np.uint16]
ConfidenceArray = NDArray[np.float32] | NDArray[np.float16]
Colour = tuple[int, int, int]

#: Raised by one whenever the same input and options give other labels or other files; a release alone does not raise it.
LABELS_VERSION = 1

#: Label id of pixels that belong to none of the classes.
BACKGROUND = 0

#: More classes need 16 bits per pixel.
MAX_CLASSES_8_BIT = 254


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a model as weights.lock pins it; `size` in bytes. None: the lock does not state it."""

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

    Attributes:
        path: Where the image is.
        relative: Its path relative to the image root, posix; its output files are named by this path.
    """

    path: Path
    relative: PurePosixPath

    @property
    def name(self) -> str:
        """The relative path as printable text: bytes that are no UTF-8 are spelled out. All records name the image by it."""
        return printable_path(self.relative)


def printable_path(path: PurePath) -> str:
    """Write a path as posix text that can be printed and written into JSON: bytes that are not UTF-8 are spelled out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def name_order(name: str) -> tuple[str, ...]:
    """Return the sort key of images by their names: folder by folder, in code point order."""
    return tuple(name.split("/"))


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of the output.

    Attributes:
        id: The label id, 1..N in the order given, equal to the COCO category id.
        name: What the class is called.
        colour: (red, green, blue), 0..255.
        synonyms: Further phrases that stand for the class.
        supercategory: The COCO supercategory; the name of the class where none was given.
        min_confidence: Replaces the minimum confidence of the options for this class, 0..1. None: the options decide.
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

    The h x w patches divide the image as the model sees it, resized and in one piece.

    Attributes:
        ids: [K, h, w] uint8 (uint16 above 254 classes), as in the label map; 0 is the background.
        scores: [K, h, w] float16 in [0, 1]: softmax(score / temperature) over the classes and the background, before any
            refinement.
    """

    ids: LabelArray
    scores: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows through which the model sees one image.

    Attributes:
        size: (height, width) in pixels, to which the image is resized.
        side: Side of the square windows in pixels; 0 without windows.
        corners: (top, left) of each window, row by row; empty if the model sees the image in one piece.
    """

    size: tuple[int, int]
    side: int
    corners: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """Whether the model sees the image in one piece."""
        return not self.corners

    @property
    def short_side(self) -> int:
        """The shorter side of the resized image in pixels."""
        return min(self.size)


def ignore_id(number_of_classes: int) -> int:
    """Return the label id of low-confidence pixels: 255 up to 254 classes, 65535 above."""
    return 255 if number_of_classes <= MAX_CLASSES_8_BIT else 65535


def label_dtype(number_of_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the dtype that holds every label id: uint8 up to 254 classes, uint16 above."""
    return np.uint8 if number_of_classes <= MAX_CLASSES_8_BIT else np.uint16
