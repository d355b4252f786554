"""Records that label readers return, and checks that they share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.regions.shapes import Shape
from tipsseg.types import LabelArray
from tipsseg.util.json_values import short

#: The maximum number of objects in an image. Each takes a fraction of a millisecond.
OBJECTS_MAX = 100_000

#: (height, width) in pixels.
Size = tuple[int, int]

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, eq=False)
class PixelLabels:
    """The labels of all pixels in an image.

    Attributes:
        labels: [H, W], the label ids.
        ignores: True if the format can mark ignored pixels. If False, ignored pixels may be stored as background.
    """

    labels: LabelArray
    ignores: bool

    def digest(self, *, exact: bool) -> str:
        """Return the sha256 of the labels in hex. It depends on `exact`, which decides the pixels that are corrected."""
        return _digest((repr((self.labels.shape, str(self.labels.dtype))), self.labels), exact=exact)


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects in an image, the last one on top.

    Attributes:
        shapes: The objects.
        written_as: The name of the tipsseg format that describes objects in the same way.
    """

    shapes: tuple[Shape, ...]
    written_as: str

    def digest(self, *, exact: bool) -> str:
        """Return the sha256 of the objects in hex; see `PixelLabels.digest`."""
        parts = (
            (repr((shape.class_id, shape.y, shape.x, shape.mask.shape)), np.packbits(shape.mask))
            for shape in self.shapes
        )
        return _digest((part for pair in parts for part in pair), exact=exact)


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image in a source of corrections.

    Attributes:
        name: The posix path of the image in the source, with or without its suffix.
        where: The file that contains its labels, for messages.
        read: Reads the image's labels, given its size. Raises ImageError, or ValueError if the file `where` is invalid.
        submitted: True if a person certainly finished the image. If False, an image without objects may be unfinished.
        by_list: True if the image comes from an image list and so has no objects. Any other entry for it takes precedence.
    """

    name: str
    where: Path
    read: Callable[[Size], PixelLabels | Objects]
    submitted: bool = True
    by_list: bool = False


def _digest(parts: Iterable[str | NDArray[np.generic]], *, exact: bool) -> str:
    digest = hashlib.sha256(b"exact" if exact else b"")
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


@contextmanager
def image_errors(where: Path, part: str = "") -> Iterator[None]:
    """Turn a ValueError or InputError into an ImageError for a file. `part` names the faulty part of the file."""
    try:
        yield
    except (ValueError, InputError) as error:
        text = error.message if isinstance(error, InputError) else str(error)
        raise ImageError(where, f"{part}: {text}" if part else text) from error


def read_shapes(
    where: Path, records: Sequence[_Record], noun: str, read: Callable[[_Record], Shape | None], part: str = ""
) -> tuple[Shape, ...]:
    """Read records into shapes. Skip records for which `read` returns None.

    Args:
        where: The file that contains the records.
        records: The records of an image.
        noun: The word for a record in messages, such as "line".
        read: Reads one record. Raises ValueError.
        part: The part of the file that contains the records, for messages.

    Raises:
        ImageError: A record cannot be read, or there are too many.
    """
    with image_errors(where, part):
        check_object_count(records)
    shapes = []
    for number, record in enumerate(records, start=1):
        with image_errors(where, f"{part}, {noun} {number}" if part else f"{noun} {number}"):
            shapes.append(read(record))
    return tuple(shape for shape in shapes if shape is not None)


def parse_corners(points: object) -> NDArray[np.float64]:
    """Parse a list of [x, y] pairs into corners [K, 2]. Raises ValueError for any other value."""
    if not isinstance(points, list):
        raise ValueError("`points` is not a list")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError(f"a point must be [x, y], not {short(point)}")
    return parse_numbers([value for point in points for value in point]).reshape(-1, 2)


def parse_numbers(values: object) -> NDArray[np.float64]:
    """Parse a list of numbers into an array [K]. Raises ValueError for any other value."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"not a list of numbers: {short(values)}")
    return np.array(values, np.float64)


def check_object_count(objects: Sequence[object]) -> None:
    """Raise ValueError if there are more than OBJECTS_MAX objects."""
    if len(objects) > OBJECTS_MAX:
        raise ValueError(f"{len(objects):,} objects in an image; the limit is {OBJECTS_MAX:,}")


def check_size(height: object, width: object, size: Size) -> None:
    """Raise ValueError if the size in a record differs from the image size."""
    if type(height) is not int or type(width) is not int:
        raise ValueError("image height and width are missing, or not whole numbers")
    if (height, width) != size:
        raise ValueError(f"{height} x {width} (height x width), but the image is {size[0]} x {size[1]}")
