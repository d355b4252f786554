"""Corrections as the formats read them: records, class names, and checks that formats share."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError, InputError, Words
from tipsseg.regions.shapes import NoPixelsError, Shape
from tipsseg.types import BACKGROUND, MAX_CLASSES_8_BIT, LabelArray, LabelClass
from tipsseg.util.files import describe_error
from tipsseg.util.json import short
from tipsseg.util.text import clean_name, fold, join_first, quote
from tipsseg.vocabulary.vocabulary import MAX_CLASSES

#: The maximum number of objects in an image. Each takes a fraction of a millisecond.
OBJECTS_MAX = 100_000

#: The name of the class that some tools add for pixels without a class.
_BACKGROUND_NAME = "background"

#: (height, width) in pixels.
Size = tuple[int, int]

_Record = TypeVar("_Record")


def _digest(parts: Iterable[str | NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class PixelLabels:
    """The labels of all pixels in an image, or its objects alone.

    Attributes:
        labels: [H, W], the label ids; None if they stay as they are.
        ignores: True if the format can mark ignored pixels. If False, ignored pixels may be stored as background.
        instances: [H, W] int32, the objects, 0 for none; None if the format does not tell objects of one class apart.
        base: The digest of the labels that the file showed when tipsseg wrote it (see `Entry.base`); "" if it does not say.
    """

    labels: LabelArray | None
    ignores: bool = True
    instances: NDArray[np.int32] | None = None
    base: str = ""

    def digest(self) -> str:
        """Return the sha256 of the labels in hex."""
        arrays = [each for each in (self.labels, self.instances) if each is not None]
        return _digest([repr((arrays[0].shape, str(arrays[0].dtype))), *arrays])


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects in an image, the last one on top.

    Attributes:
        shapes: The objects.
        written_as: The name of the tipsseg format that describes objects in the same way.
        skipped: The kinds of shapes without pixels, such as lines, each with its number.
        base: See `PixelLabels.base`.
    """

    shapes: tuple[Shape, ...]
    written_as: str
    skipped: Mapping[str, int] = field(default_factory=dict)
    base: str = ""

    def digest(self) -> str:
        """Return the sha256 of the objects in hex."""
        return _digest(
            part
            for shape in self.shapes
            for part in (repr((shape.class_id, shape.y, shape.x, shape.mask.shape)), np.packbits(shape.mask))
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Changes(PixelLabels):
    """The changes of an image, made on the labels that it had.

    Attributes:
        draw: Returns the labels [H, W] with the changes, given the labels [H, W] and the instances [H, W] before, or None. Raises
            ValueError if they do not fit.
        content: The sha256 of the changes.
    """

    labels: None = None
    draw: Callable[[LabelArray, NDArray[np.int32] | None], LabelArray]
    content: str

    def digest(self) -> str:
        return self.content


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image in a source of corrections.

    Attributes:
        name: The posix path of the image in the source, with or without its suffix.
        where: The file that contains its labels, for messages.
        read: Reads the image's labels, given its size; raises ImageError, or ValueError if the file `where` is invalid.
        submitted: True if a person certainly finished the image. If False, an image without objects may be unfinished.
        by_list: True if the image comes from an image list and so has no objects. Any other entry for it takes precedence.
        other_name: Returns a second name, or "", to look for if the run has no image `name`; raises ImageError.
        base: See `PixelLabels.base`; where it is known, it stands above the one that `read` finds.
        ours: True if tipsseg wrote the file as it is: nothing in it is a person's.
        picture: The digest of the upright pixels of the image's picture; "" if the source does not know it.
        accepted: True if a person looked at the image, and its labels are right; False if they are not any more.
        saved: See Correction.
    """

    name: str
    where: Path
    read: Callable[[Size], PixelLabels | Objects]
    submitted: bool = True
    by_list: bool = False
    other_name: Callable[[], str] | None = None
    base: str = ""
    ours: bool = False
    picture: str = ""
    accepted: bool | None = None
    saved: str = ""


def browser_of(saved: str) -> str:
    """Return the browser in `Correction.saved`."""
    return saved.partition(" ")[0]


def is_older(saved: str, imported: str) -> bool:
    """Return True if a page saved a file before one that was imported; see `Correction.saved`."""
    return bool(saved) and browser_of(saved) == browser_of(imported) and time_of(saved) < time_of(imported)


def time_of(saved: str) -> int:
    """Return the time in `Correction.saved`, in milliseconds; 0 if it is unknown."""
    return int(saved.partition(" ")[2] or 0)


def index_images(images: Iterable[SourceImage]) -> dict[str, SourceImage]:
    """Return the images of a source by name. Raise ImageError if two files have the labels of one image."""
    found: dict[str, SourceImage] = {}
    for image in images:
        known = found.setdefault(image.name, image)
        if known.by_list:
            found[image.name] = image
        elif known is not image and not image.by_list:
            raise ImageError(image.where, f"labels of {image.name}, as {known.where} has too", "Remove one of them.")
    return found


class ClassNames:
    """Look up the classes of a run by name.

    Attributes:
        classes: The classes of the run.
        count: Their number.
        collects: True if readers pass all classes of a source to `declare`.
        reading: The file that is read, for errors.
    """

    collects = False

    def __init__(self, classes: Sequence[LabelClass], *, add: bool) -> None:
        """Index the classes of a run. If `add` is True, an unknown name becomes a new class."""
        self._bits, self._most = (8, MAX_CLASSES_8_BIT) if len(classes) <= MAX_CLASSES_8_BIT else (16, MAX_CLASSES)
        self._names = [entry.name for entry in classes]
        self.classes = classes
        self.count = len(classes)
        self._add = add
        self._ids = {entry.name: entry.id for entry in classes}
        self._folded: dict[str, list[int]] = defaultdict(list)
        for entry in classes:
            self._folded[fold(entry.name)].append(entry.id)
        self._unknown: dict[str, Path | None] = {}
        self.reading: Path | None = None

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the new classes, in the order of their ids."""
        return tuple(self._names[self.count :])

    def declare(self, names: Iterable[object]) -> None:
        """Take note of classes that a source lists, whether or not an object has them. Here they have no effect."""

    def id_of(self, name: object) -> int:
        """Return the label id of a class. A name that differs in case, spacing or slashes alone also matches, if it is unambiguous.

        "background" returns 0 unless a class has that name. An unknown name, or a new class above the limit, returns 0, and
        `raise_unknown` reports it later. Raise ValueError if `name` is blank or not a string.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError("an object has no class name")
        if name in self._ids:
            return self._ids[name]
        folded = fold(name)
        alike = self._folded.get(folded, [])
        if len(alike) == 1:
            return alike[0]
        if folded == _BACKGROUND_NAME and not alike:
            return BACKGROUND
        if self._add and not alike:
            self._names.append(clean_name(name))
            added = len(self._names) if len(self._names) <= self._most else BACKGROUND
            self._ids[name] = added
            self._folded[folded].append(added)
            return added
        self._unknown.setdefault(name, self.reading)
        return BACKGROUND

    @property
    def too_many(self) -> bool:
        """True if the masks cannot store that many classes."""
        return len(self._names) > self._most

    def raise_unknown(self) -> None:
        """Raise InputError if a name was unknown, or if the masks cannot store that many classes."""
        if self.too_many:
            raise InputError(
                f"{self.count} classes and {len(self.added)} new ones exceed the limit of {self._bits}-bit masks, {self._most}",
                "Add fewer classes, or label again with all of them.",
            )
        if not self._unknown:
            return
        texts = []
        for name in self._unknown:
            close = difflib.get_close_matches(fold(name), list(self._folded), n=1)
            known = self._names[self._folded[close[0]][0] - 1] if close else ""
            texts.append(quote(name) + (f" (did you mean {quote(known)}?)" if known else ""))
        where = next(iter(self._unknown.values()))
        raise InputError(
            f"{'' if where is None else f'{where}: '}unknown class {join_first(texts, 5)}",
            Words(
                "Rename the class in the labelling tool, or add the class to the run with {add_classes}. The "
                "classes are: {names}.",
                names=join_first(self._names, 20),
            ),
        )


@contextmanager
def image_errors(where: Path, part: str = "") -> Iterator[None]:
    """Convert ValueError, OSError and InputError into an ImageError for the file `where`. `part` names the faulty part."""
    try:
        yield
    except (ValueError, OSError, InputError) as error:
        text = error.message if isinstance(error, InputError) else describe_error(error)
        raise ImageError(where, part + ": " + text if part else text) from error


def read_objects(
    where: Path,
    records: Sequence[_Record],
    name: Callable[[int, _Record], str],
    read: Callable[[_Record], Shape | None],
    written_as: str,
    part: str = "",
    base: str = "",
) -> Objects:
    """Read the records of an image. Skip records for which `read` returns None, and count shapes without pixels.

    Args:
        where: The file that contains the records.
        records: The records of the image.
        name: Returns the name of a record in messages, such as "line 3", from its number and the record.
        read: Reads one record; raises ValueError.
        written_as: See Objects.
        part: The part of the file that contains the records, for messages.
        base: See Objects.

    Raises:
        ImageError: A record cannot be read, or there are too many.
    """
    with image_errors(where, part):
        check_object_count(records)
    shapes, skipped = [], Counter[str]()
    for number, record in enumerate(records, start=1):
        try:
            shapes.append(read(record))
        except NoPixelsError as kind:
            skipped[str(kind)] += 1
        except (ValueError, InputError) as error:
            with image_errors(where, name(number, record)):
                raise error
    return Objects(tuple(shape for shape in shapes if shape is not None), written_as, skipped, base)


def parse_corners(points: object) -> NDArray[np.float64]:
    """Parse a list of [x, y] pairs into corners [K, 2]. Raise ValueError for any other value."""
    if not isinstance(points, list):
        raise ValueError("`points` is not a list")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError(f"a point must be [x, y], not {short(point)}")
    return parse_floats([value for point in points for value in point]).reshape(-1, 2)


def parse_floats(values: object) -> NDArray[np.float64]:
    """Parse a list of numbers into an array [K]. Raise ValueError for any other value."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"not a list of numbers: {short(values)}")
    return np.array(values, np.float64)


def decode_png(text: str, size: Size) -> Image.Image:
    """Decode a base64-encoded PNG. Raise ValueError if it is damaged, or larger than the image."""
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",))
        if picture.width > size[1] or picture.height > size[0]:
            raise ValueError(f"the mask, {picture.height} x {picture.width}, is larger than the image")
        picture.load()
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mask is not a base64-encoded PNG: {error}") from error
    return picture


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
