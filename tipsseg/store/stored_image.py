"""An image of a finished run, read back: what the manifest says of it, its labels, its confidence, the scores of its objects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows, StoredImage
from tipsseg.formats.png import label_faults
from tipsseg.formats.problem import UNREADABLE, by, what_is_wrong
from tipsseg.options import FileOptions
from tipsseg.regions.components import Region
from tipsseg.regions.objects import LabelledObject, object_regions
from tipsseg.store.manifest import ManifestEntry, ObjectScore
from tipsseg.store.reader import check_hint
from tipsseg.store.writing import RunContext, RunFile, run_files
from tipsseg.types import BACKGROUND, LabelArray, TopClasses, ignore_id, name_order
from tipsseg.util.files import file_size, reason_of
from tipsseg.util.record_paths import actual_path

_LABEL_AGAIN = "Move the file away and label the image again."
_LEFT_OUT = "It lists no ignored pixels and no objects below argument `min_area`; label with argument `formats`=png."

#: How formats hold the label ids of all pixels, see `Format.labels`.
_ALL_PIXELS = ("mask", "archive")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An entry of the manifest, with its numbers in reach.

    Attributes:
        entry: The entry.
        stored: What files of the image are held against.
        names: The names of the classes that occur, by id.
        means: The mean confidence of each class that occurs, 0..1, by id.
    """

    entry: ManifestEntry
    stored: StoredImage
    names: Mapping[int, str]
    means: Mapping[int, float]


def labelled_image(
    entry: ManifestEntry | None, classes: Mapping[int, str], options: FileOptions, max_pixels: int, digest: str = ""
) -> LabelledImage:
    """The numbers of an entry.

    Args:
        entry: Of the manifest; None where a line of it is no entry.
        classes: The names of the run's classes by id, 1..N.
        options: How the labels of the run became files.
        max_pixels: Larger images are refused.
        digest: Of all that decides the labels of the run; "" where nobody asks whether it is the image's.

    Raises:
        ValueError: Where there is no entry, or its numbers cannot be.
    """
    if entry is None:
        raise ValueError("not all that belongs to an image")
    numbers = entry.numbers
    size = numbers.size
    if size[0] * size[1] > max_pixels:
        raise ValueError(f"{by(size)} pixels, where argument `max_pixels` allows {max_pixels:,}")
    pixels = {BACKGROUND: numbers.background, ignore_id(len(classes)): numbers.ignored}
    for each in numbers.classes:
        if each.id in pixels:
            raise ValueError(f"id {each.id} is there twice")
        pixels[each.id] = each.pixels
    names = {each.id: each.name for each in numbers.classes}
    means = {each.id: each.confidence for each in numbers.classes}
    stored = StoredImage(entry.image, size, pixels, classes, options, entry.digest == digest)
    return LabelledImage(entry, stored, names, means)


# ---- labels and confidence ----


def label_sources() -> tuple[str, ...]:
    """The formats that label ids can be read back from, those first that hold all pixels."""
    whole = (name for name, form in FORMATS.items() if form.labels in _ALL_PIXELS)
    return (*whole, *(name for name, form in FORMATS.items() if form.labels == "objects"))


def archives() -> tuple[str, ...]:
    """The formats that confidence and the best classes of patches can be read back from."""
    return tuple(name for name, form in FORMATS.items() if form.labels == "archive")


def suffices(name: str, held: Collection[str]) -> bool:
    """Whether images in the formats `held` can be written in format `name` as the run would have written them."""
    form = FORMATS[name]
    if form.needs_top_classes or form.needs_confidence:
        return not form.needs_top_classes and any(each in held for each in archives())
    return any(FORMATS[each].labels in _ALL_PIXELS for each in held)


def read_labels(image: LabelledImage, rows: Mapping[str, Rows], context: RunContext) -> LabelArray:
    """The label ids of an image [H, W], from the first format that is there and holds them.

    Of a mask that was corrected see `corrections`.

    Args:
        image: What the manifest says of it.
        rows: Of the image, in the formats that have no per-image file.
        context: Of the run.

    Raises:
        ImageError: Where no labels are left, or a file is not as the run wrote it: nobody is to take older labels, from another
            file, for newer ones.
    """
    for name in label_sources():
        form, path = FORMATS[name], _existing(name, image, context)
        if name not in image.entry.formats or (path is None and not rows.get(name)):
            continue
        try:
            stored = image.stored
            labels = form.labels_of_rows(stored, rows[name]) if path is None else form.read_labels(stored, path)
        except UNREADABLE as error:
            raise _failure(name, image, context, what_is_wrong(error)) from error
        wrong = next(label_faults(labels, image.stored), "") or _other_content(name, image, context)
        if wrong:
            raise _failure(name, image, context, wrong)
        return labels
    raise ImageError(context.output, f"no labels of {image.entry.image} are left", check_hint(context.output))


def read_scores(image: LabelledImage, context: RunContext) -> tuple[NDArray[np.float32], TopClasses]:
    """The confidence [H, W] of an image, 0..1, and the best classes of each patch. Raises ImageError where no archive has them."""
    for name in archives():
        path = _existing(name, image, context)
        if path is not None:
            try:
                return FORMATS[name].read_scores(image.stored, path)
            except UNREADABLE as error:
                raise _failure(name, image, context, what_is_wrong(error)) from error
    raise ImageError(context.output, f"no confidence of {image.entry.image} is left", check_hint(context.output))


def _existing(name: str, image: LabelledImage, context: RunContext) -> Path | None:
    """The per-image file in a format; None where the file is not there."""
    file = image.entry.files.get(name)
    path = None if file is None else actual_path(context.output, file)
    return path if path is not None and path.exists() else None


def _other_content(name: str, image: LabelledImage, context: RunContext) -> str:
    """What is wrong with a file that is not as it was written, by size or content; "" for others."""
    known = image.entry.written.get(name)
    if known is None:
        return ""
    path = actual_path(context.output, image.entry.files[name])
    size = file_size(path)
    if size != known.size:
        return f"{size} bytes, where the manifest says {known.size}"
    return "" if known.same_bytes(path) else "changed since it was written"


def _failure(name: str, image: LabelledImage, context: RunContext, reason: str) -> ImageError:
    if name in image.entry.files:
        return ImageError(actual_path(context.output, image.entry.files[name]), reason, _LABEL_AGAIN)
    return ImageError(run_files(name, context)[0].path, f"{image.entry.image}: {reason}", _LEFT_OUT)


class RowStream:
    """The rows in a file of the whole run, image after image.

    Attributes:
        file: The file.
        fault: Why the file cannot be read, or not further; "" where it can.
    """

    def __init__(self, file: RunFile, images: Sequence[str]) -> None:
        """Begin to read; `images` are the images that the file was written with."""
        self.file = file
        self.fault = ""
        self._rows = iter(file.read(images))
        self._next: tuple[str, Rows] | None = ("", ())  # before all images

    def of(self, image: str) -> Rows:
        """The rows of an image; none where the file does not have it. To be asked for images in the order of their names."""
        while self._next is not None and name_order(self._next[0]) < name_order(image):
            self._advance()
        return self._next[1] if self._next is not None and self._next[0] == image else ()

    def _advance(self) -> None:
        try:
            self._next = next(self._rows, None)
        except (OSError, ValueError) as error:
            self._next = None
            self.fault = reason_of(error)


# ---- scores of objects ----


def object_scores(objects: Iterable[LabelledObject]) -> tuple[ObjectScore, ...]:
    """What the manifest keeps of objects."""
    return tuple((each.region.class_id, each.region.area, *each.region.box, each.score) for each in objects)


class ObjectScores:
    """Gives the objects of labels that were read back the scores that the manifest has.

    Attributes:
        rough: How many objects got the mean of their class, because nothing closer is known.
    """

    def __init__(self, known: Iterable[ObjectScore], means: Mapping[int, float], options: FileOptions) -> None:
        """Of one image.

        Args:
            known: As the manifest has them.
            means: The confidence of other objects, by class.
            options: What is one object.
        """
        self.rough = 0
        # No two objects have the same class, area and box: regions of one class that touch all four sides of one box meet.
        self._known = {each[:-1]: each[-1] for each in known}
        self._means = means
        self._options = options

    def objects(self, labels: LabelArray, classes: int) -> list[LabelledObject]:
        """Return the objects that labels [H, W] of so many classes show, as `objects.labelled_objects` finds them."""
        regions = object_regions(labels, classes, self._options)
        return [LabelledObject(region, self._score(region), self._options.simplify) for region in regions]

    def _score(self, region: Region) -> float:
        score = self._known.get((region.class_id, region.area, *region.box))
        if score is not None:
            return score
        self.rough += 1
        return self._means[region.class_id]
