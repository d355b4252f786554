"""What a source says of images: the records between the readers of formats and the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.regions.shapes import Shape
from tipsseg.types import LabelArray
from tipsseg.util.json_values import short

#: Objects of an image. Each takes a part of a millisecond.
OBJECTS_MAX = 100_000

#: (height, width) in pixels.
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """Labels of all pixels of an image.

    Attributes:
        labels: [H, W], the label ids.
        ignores: Whether the format can say that pixels are ignored; else its background may stand for such pixels.
    """

    labels: LabelArray
    ignores: bool

    def digest(self, *, exact: bool) -> str:
        """Return the sha256 of what is said, in hex. `exact` tells whether every pixel counts, which changes what is taken."""
        return _digest((repr((self.labels.shape, str(self.labels.dtype))), self.labels), exact=exact)


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Objects of an image, the last one on top.

    Attributes:
        shapes: The objects.
        written_as: The format that wrote the labels in the way in which these objects are written.
    """

    shapes: tuple[Shape, ...]
    written_as: str

    def digest(self, *, exact: bool) -> str:
        """Return the sha256 of what is said, in hex; see `Whole.digest`."""
        parts = (
            (repr((each.class_id, each.y, each.x, each.mask.shape)), np.packbits(each.mask)) for each in self.shapes
        )
        return _digest((part for pair in parts for part in pair), exact=exact)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """An image in a source.

    Attributes:
        name: The path of the image as the source has it, posix, with or without its suffix.
        where: The file that says so.
        read: Gives what the source says of the image, whose size has to be this. Raises ImageError, or ValueError, which is then
            told of `where`.
        submitted: Whether a person surely saw the image. If not, one without objects may only wait for that person.
        by_list: Whether nothing but a list of images names it, so that it has no objects. Anything else that names it counts first.
    """

    name: str
    where: Path
    read: Callable[[Size], Whole | Objects]
    submitted: bool = True
    by_list: bool = False


def _digest(parts: Iterable[str | NDArray[np.generic]], *, exact: bool) -> str:
    found = hashlib.sha256(b"exact" if exact else b"")
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


@contextmanager
def faults_of(where: Path, what: str = "") -> Iterator[None]:
    """Turn a ValueError into an ImageError of a file; `what` is the part of the file."""
    try:
        yield
    except (ValueError, InputError) as error:
        text = error.message if isinstance(error, InputError) else str(error)
        raise ImageError(where, f"{what}: {text}" if what else text) from error


def corners_of(points: object) -> NDArray[np.float64]:
    """Return corners [K, 2], x and y, from a list of pairs. Raises ValueError for anything else."""
    if not isinstance(points, list):
        raise ValueError("no list of points")
    for each in points:
        if not isinstance(each, list) or len(each) != 2:
            raise ValueError(f"a point {short(each)}")
    return numbers_of([value for each in points for value in each]).reshape(-1, 2)


def numbers_of(values: object) -> NDArray[np.float64]:
    """Return a list of numbers as an array [K]. Raises ValueError for anything else."""
    if not isinstance(values, list) or not all(type(each) in (int, float) for each in values):
        raise ValueError(f"no list of numbers: {short(values)}")
    return np.array(values, np.float64)


def check_number(objects: Sequence[object]) -> None:
    """Raise ValueError for more objects than an image has."""
    if len(objects) > OBJECTS_MAX:
        raise ValueError(f"{len(objects):,} objects, where {OBJECTS_MAX:,} are the most that are read of one image")


def check_size(height: object, width: object, size: Size) -> None:
    """Raise ValueError if a record says another size than that of the image."""
    if type(height) is not int or type(width) is not int:
        raise ValueError("no height and width of the image, in whole pixels")
    if (height, width) != size:
        raise ValueError(f"{height} x {width} (height x width), where the image is {size[0]} x {size[1]}")
