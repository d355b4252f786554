"""Define the frozen records that rooms exchange. Never imports torch: everything after a LabelMap is numpy.

Sizes are (height, width) in pixels. Colours are (red, green, blue), 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tipsseg.address import address_text, as_address, is_url, url_of
from tipsseg.errors import ImageError

#: Remarks on an image: it is nearly black, has more pages than the first, a compressed long side, or no reader in LabelMe, or the
#: edges of its regions differ from its refined labels.
Remark = Literal["dark", "pages", "squeezed", "labelme", "rough"]

LabelArray = NDArray[np.uint8] | NDArray[np.uint16]
ConfidenceArray = NDArray[np.float32] | NDArray[np.float16]
Colour = tuple[int, int, int]

#: The colour of ignored pixels.
IGNORED_COLOUR: Colour = (150, 150, 150)

#: Incremented when the same input and options produce other labels or files. A release does not increment it by itself.
LABELS_VERSION = 1

#: The same for what only some runs use: refinement, parts, and each image's own names. Other runs are not affected.
METHOD_VERSIONS = {"refinement": 2, "parts": 2, "names": 2}

#: The label id of pixels without a class.
BACKGROUND = 0

#: Maximum number of classes with 8 bits per pixel; more need 16.
MAX_CLASSES_8_BIT = 254

#: Maximum aspect ratio of enlarged images (see `view.working_size`).
LONGEST_ASPECT = 16


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a model in weights.lock, with its size in bytes and its hash; either is None if it is not pinned."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model in weights.lock.

    `repository` and the 40-hex `revision` name a snapshot on the hub. They are None for a model that ships in the package; its
    folder, relative to the package, is `embedded`.
    """

    id: str
    licence: str
    parameters: int
    files: tuple[LockedFile, ...]
    repository: str | None = None
    revision: str | None = None
    embedded: str | None = None


@dataclass(frozen=True, slots=True, init=False)
class ImageRef:
    """An image to label. It holds strings, which are smaller than paths, because a run may have very many images.

    Its address is a file, a URL, or the path of a container and a name in it, as "shard.tar/a.jpg".

    Attributes:
        name: `relative` as printable text, the name of the image in all records. Bytes that are not UTF-8 are escaped.
    """

    name: str
    _path: str
    _relative: str

    def __init__(self, path: Path, relative: PurePosixPath) -> None:
        object.__setattr__(self, "_path", str(path))
        object.__setattr__(self, "_relative", str(relative))
        object.__setattr__(self, "name", _printable(self._relative))

    def __reduce__(self) -> tuple[object, ...]:
        # Another process has other numbers for the secrets of a URL.
        return _restore_ref, (url_of(self.path) if is_url(self._path) else self._path, self._relative)

    @property
    def path(self) -> Path:
        """The address."""
        return Path(self._path)

    @property
    def address(self) -> str:
        """The address as text (see `address_text`)."""
        return address_text(self._path)

    @property
    def relative(self) -> PurePosixPath:
        """The path relative to the image root. Output files are named after it."""
        return PurePosixPath(self._relative)


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that cannot be labelled, or a folder that cannot be listed.

    Attributes:
        ref: The image.
        error: The reason.
    """

    ref: ImageRef
    error: ImageError

    @property
    def name(self) -> str:
        """The name of the image."""
        return self.ref.name


def _restore_ref(address: str, relative: str) -> ImageRef:
    return ImageRef(as_address(address), PurePosixPath(relative))


def printable_path(path: PurePath) -> str:
    """Return an address as posix text for terminals and JSON (see `address_text`). Bytes that are not UTF-8 are escaped."""
    return _printable(address_text(path) if is_url(path) else path.as_posix())


def _printable(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode("utf-8")


def name_order(name: str) -> tuple[str, ...]:
    """Return the sort key of an image name: folder by folder, in code point order."""
    return tuple(name.split("/"))


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of a label map.

    Attributes:
        id: The label id, 1..N in the order of the classes, equal to the COCO category id.
        name: The name, and the first phrase.
        colour: (red, green, blue), 0..255.
        synonyms: Further phrases for the class.
        supercategory: The COCO supercategory; by default the name.
        min_confidence: The minimum confidence of this class, 0..1. None: as the options say.
        part_of: The label id of the class that this class is a part of; 0 if it is not a part.
        phrase: The first phrase; "" if it is the name.
        thing: True for a countable thing, False for stuff; None if nobody says.
    """

    id: int
    name: str
    colour: Colour
    synonyms: tuple[str, ...] = ()
    supercategory: str = ""
    min_confidence: float | None = None
    part_of: int = BACKGROUND
    phrase: str = ""
    thing: bool | None = None

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases."""
        return (self.phrase or self.name, *self.synonyms)


@dataclass(frozen=True, slots=True, eq=False)
class TopClasses:
    """The best K classes of each patch, best first. The h x w patches divide the resized image.

    Attributes:
        ids: [K, h, w] uint8 (uint16 above 254 classes): label ids, 0 is the background.
        scores: [K, h, w] float16 in [0, 1]: softmax(score / temperature) over the classes and the background, before refinement.
    """

    ids: LabelArray
    scores: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows that an image is cut into for the model.

    Attributes:
        size: (height, width) of the resized image in pixels.
        side: The side of the square windows in pixels; 0 without windows.
        corners: (top, left) of the windows, row by row; empty for an image in one piece.
        fade: Pixels at the borders of a window in which its weight rises linearly to 1. 0: all pixels weigh the same.
    """

    size: tuple[int, int]
    side: int
    corners: tuple[tuple[int, int], ...]
    fade: int = 0

    @property
    def whole(self) -> bool:
        """True if the model sees the image in one piece."""
        return not self.corners

    @property
    def short_side(self) -> int:
        """Shorter side of the resized image in pixels."""
        return min(self.size)


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """The place of a block of a picture: its number, from top to bottom, then from left to right, and its pixels."""

    number: int
    top: int
    left: int
    height: int
    width: int


def ignore_id(number_of_classes: int) -> int:
    """Return the label id of pixels below the minimum confidence: 255 up to 254 classes, 65535 above."""
    return 255 if number_of_classes <= MAX_CLASSES_8_BIT else 65535


def label_dtype(number_of_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest dtype for all label ids: uint8 up to 254 classes, uint16 above."""
    return np.uint8 if number_of_classes <= MAX_CLASSES_8_BIT else np.uint16
