"""Draw an image's files for the page, and build its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.address import address_text
from tipsseg.errors import ImageError
from tipsseg.formats.given import LabelSource, paint_objects
from tipsseg.formats.npz import read_confidence
from tipsseg.images.decoding import open_thumbnail
from tipsseg.images.sources.access import absence, exists, matches
from tipsseg.regions.objects import number_pixels, numbered_objects
from tipsseg.run.entry import Entry
from tipsseg.run.labels import Labels
from tipsseg.run.read import RunImage
from tipsseg.runs.rank.order import background_confidence, mean_confidence
from tipsseg.runs.report import pictures
from tipsseg.runs.report.place import Place, image_key
from tipsseg.types import LabelArray, LabelClass, printable_path
from tipsseg.util.files import json_bytes

#: Increase this if the code draws different files.
_VERSION = 4

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """An image of the page.

    Attributes:
        entry: The manifest entry; after a correction, with the summary of the corrected labels.
        signature: A digest of the inputs of its files; "" if the image must be drawn again next time.
        record: The image's record for the page.
        new: True if its files were drawn now.
        error: The image's error, or None.
    """

    entry: Entry
    signature: str
    record: Record
    new: bool
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class ImageMaker:
    """Draw images for the page. `images` is the folder of the images, if they have moved; `others` has labels to switch to."""

    place: Place
    classes: tuple[LabelClass, ...]
    images: Path | None
    max_pixels: int
    others: LabelSource | None = None

    def make(self, image: RunImage) -> ImageResult:
        """Draw an image's files, unless they are up to date. Thread-safe. Raises OutputError if one cannot be written.

        An image that cannot be read gets a grey picture. An image whose labels cannot be read has no files.
        """
        try:
            return self._make(image)
        except ImageError as error:
            entry = image.entry
            record = failed_record(entry.image, address_text(image.path(self.images)), error.message)
            return ImageResult(entry, "", record, True, error)

    def _make(self, image: RunImage) -> ImageResult:
        path, fault = image.path(self.images), self._picture_error(image)
        others, unread_labels = self._others(image)
        current = image.current()
        entry, labels = current.entry, current.labels.labels
        signature = self._signature(entry, path, fault, others)
        record = self.place.record(entry.image, signature)
        if record is not None:
            return ImageResult(entry, signature, record, False, fault or unread_labels)
        confidence = None if entry.corrected else _confidence(image)
        shown, unread = self._picture(image, labels, fault)
        key = image_key(entry.image)
        picture, thumbnail, label_map = self.place.files(entry.image)
        self.place.write(picture, pictures.jpeg(shown))
        self.place.write(thumbnail, pictures.jpeg(pictures.thumbnail(shown, labels, self.classes)))
        objects = self._objects(image, current.labels)
        self.place.write(label_map, pictures.map_script(key, labels, confidence, objects, others))
        places = pictures.name_places(labels, len(self.classes))
        record = shown_image(
            entry, address_text(path), places, shown=unread is None, confidences=confidence is not None
        )
        record = {**record, "labels": None if objects is None else image.digest()}
        # The signature does not depend on whether the image can be decoded.
        return ImageResult(entry, signature if unread is fault else "", record, True, unread or unread_labels)

    def _others(self, image: RunImage) -> tuple[LabelArray | None, ImageError | None]:
        """Return the other labels of an image [H, W]; None if there are none, or with the error if they cannot be read."""
        if self.others is None:
            return None, None
        try:
            size = image.entry.numbers.size
            given = self.others.read(image.ref(self.images), size)
        except ImageError as error:
            return None, error
        return None if given is None else paint_objects(given, size, len(self.classes))[0], None

    def _objects(self, image: RunImage, labels: Labels) -> NDArray[np.uint32] | None:
        """Return the number of the object at each pixel [H, W], 0 for none; None if classes overlap, which no page corrects."""
        if labels.layers is not None:
            return None
        height, width = labels.labels.shape
        regions = numbered_objects(labels.labels, len(self.classes), labels.instances)
        return number_pixels(regions, (height, width))

    def _picture_error(self, image: RunImage) -> ImageError | None:
        """Return the error if the image is missing or has changed, or None. This does not decode the image."""
        path = image.path(self.images)
        if not exists(path):
            return ImageError(path, absence(path), "Set the folder of the images with argument `images`.")
        if not matches(image.entry.input, path):
            return ImageError(path, "changed since it was labelled", "Label it again.")
        return None

    def _picture(
        self, image: RunImage, labels: LabelArray, fault: ImageError | None
    ) -> tuple[Image.Image, ImageError | None]:
        pixels = None
        if fault is None:
            try:
                pixels = open_thumbnail(image.path(self.images), self.max_pixels, image.run.info.spec.options.stretch)
            except ImageError as error:
                fault = error
        return pictures.picture(pixels, labels.shape), fault

    def _signature(
        self,
        entry: Entry,
        path: Path,
        fault: ImageError | None,
        others: LabelArray | None,
    ) -> str:
        facts = (
            _VERSION,
            entry.version,
            entry.correction_text,
            printable_path(path),
            "" if fault is None else fault.reason,
            [(entry.id, entry.name, entry.colour) for entry in self.classes],
            None if others is None else hashlib.sha256(np.ascontiguousarray(others).tobytes()).hexdigest(),
        )
        return hashlib.sha256(json_bytes(facts)).hexdigest()


def _confidence(image: RunImage) -> NDArray[np.float32] | None:
    """Return the confidence [H, W], 0..1; None if no file stores it."""
    path = image.file("npz")
    try:
        return None if path is None else read_confidence(path, image.entry.numbers.size)
    except (ImageError, OSError, ValueError):  # the page works without confidences
        return None


def shown_image(
    entry: Entry, path: str, places: list[tuple[int, int, int]], *, shown: bool, confidences: bool
) -> Record:
    """Return the record of an image for the page; `places` come from `pictures.name_places`."""
    numbers = entry.numbers
    return {
        "image": entry.image,
        "path": path,
        "key": image_key(entry.image),
        "size": list(numbers.size),
        "state": "edited" if entry.corrected else "unchanged",
        "confidence": mean_confidence(entry),
        "classes": [[entry.id, entry.pixels, entry.confidence] for entry in numbers.classes],
        "background": [numbers.background, background_confidence(entry)],
        "ignored": numbers.ignored,
        "places": places,
        "shown": shown,
        "confidences": confidences,
    }


def failed_record(image: str, path: str, reason: str) -> Record:
    return {"image": image, "path": path, "key": None, "state": "failed", "reason": reason, "classes": []}
