"""One image of the page: its files and its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.images.decoding import open_thumbnail
from tipsseg.runs.rank.expected import background_confidence, expected_error, mean_confidence
from tipsseg.runs.rank.source import Item
from tipsseg.runs.report import pictures
from tipsseg.runs.report.place import Place, image_key
from tipsseg.store.corrections import Correction, corrected_summary, find_correction, read_correction, written_mask
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.reader import check_hint
from tipsseg.store.stored_image import LabelledImage, archives, labelled_image, read_labels, read_scores
from tipsseg.types import LabelArray, LabelClass, printable_path
from tipsseg.util.files import is_file, json_bytes

#: Is raised when the files of an image are made in another way.
_VERSION = 2

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Made:
    """An image of the page.

    Attributes:
        entry: Of the manifest; after a correction, with the numbers of the corrected labels.
        signature: Of what the files were made; "" for an image that is made again each time.
        record: What the page knows of it.
        new: Whether its files were made now.
        error: What is wrong with the image; None: nothing.
    """

    entry: ManifestEntry
    signature: str
    record: Record
    new: bool
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class ImageMaker:
    """Makes the files of images.

    Attributes:
        place: The folder of the page.
        classes: The classes of the run.
        max_pixels: Larger images are refused.
    """

    place: Place
    classes: tuple[LabelClass, ...]
    max_pixels: int

    def make(self, item: Item) -> Made:
        """Make the files of an image, unless they are there; may be called from several threads. Raises OutputError.

        An image that cannot be read leaves a grey picture with its labels. An image whose labels cannot be read has no files.
        """
        try:
            return self._make(item)
        except ImageError as error:
            return Made(item.entry, "", failed_record(item.entry.image, str(item.path), error.message), True, error)

    def _make(self, item: Item) -> Made:
        entry, output = item.entry, item.context.output
        correction = find_correction(entry, output, item.context.ownership)
        fault = _fault(item)
        signature = self._signature(item, correction, fault)
        labels, stored = None, self._stored(item)
        entry = replace(entry, corrected=None if correction is None else correction.digest)
        # A mask that is the run's again is read as one that a person corrected, back to what it was.
        source = correction or (None if item.entry.corrected is None else written_mask(entry, output))
        if source is not None:
            labels = read_correction(source, stored.stored)
            entry = replace(entry, summary=corrected_summary(labels, self.classes, entry.summary))
        known = self.place.record(entry.image, signature)
        if known is not None:
            return Made(entry, signature, known, False, fault)
        if labels is None:
            labels = read_labels(stored, item.rows, item.context)
        confidence = _confidence(stored, item) if source is None else None
        shown, unread = self._picture(item, labels, fault)
        key = image_key(entry.image)
        picture, thumbnail, label_map = self.place.files(entry.image)
        self.place.write(picture, pictures.jpeg(shown))
        self.place.write(thumbnail, pictures.jpeg(pictures.thumbnail(shown, labels, self.classes)))
        self.place.write(label_map, pictures.map_script(key, labels, confidence))
        places = pictures.name_places(labels, len(self.classes))
        record = image_record(entry, str(item.path), places, shown=unread is None, confidences=confidence is not None)
        # Whether an image can be decoded, the signature does not tell.
        return Made(entry, signature if unread is fault else "", record, True, unread)

    def _stored(self, item: Item) -> LabelledImage:
        try:
            names = {each.id: each.name for each in self.classes}
            return labelled_image(item.entry, names, item.context.files, self.max_pixels)
        except ValueError as error:
            hint = check_hint(item.context.output)
            raise ImageError(item.path, f"its line in the manifest: {error}", hint) from error

    def _picture(
        self, item: Item, labels: LabelArray, fault: ImageError | None
    ) -> tuple[Image.Image, ImageError | None]:
        pixels = None
        if fault is None:
            try:
                pixels = open_thumbnail(item.path, self.max_pixels)
            except ImageError as error:
                fault = error
        return pictures.picture(pixels, labels.shape), fault

    def _signature(self, item: Item, correction: Correction | None, fault: ImageError | None) -> str:
        entry = item.entry
        facts = (
            _VERSION,
            entry.record(),
            None if correction is None else correction.digest,
            printable_path(item.path),
            "" if fault is None else fault.reason,
            [(each.id, each.name, each.colour) for each in self.classes],
        )
        return hashlib.sha256(json_bytes(facts)).hexdigest()


def _fault(item: Item) -> ImageError | None:
    """What keeps the picture of an image from being shown, as far as that is known without decoding it."""
    if not is_file(item.path):
        return ImageError(item.path, "no such file", "Give the folder that has it with argument `images`.")
    if not item.entry.fingerprint.matches(item.path):
        return ImageError(item.path, "changed since it was labelled", "Label it again.")
    return None


def _confidence(stored: LabelledImage, item: Item) -> NDArray[np.float32] | None:
    """The confidence [H, W], 0..1; None where no file of the image has it."""
    if not any(name in item.entry.files for name in archives()):
        return None
    try:
        return read_scores(stored, item.context)[0]
    except ImageError:  # the page does without it
        return None


def image_record(
    entry: ManifestEntry, path: str, places: list[tuple[int, int, int]], *, shown: bool, confidences: bool
) -> Record:
    """What the page knows of an image.

    Args:
        entry: Its line in the manifest.
        path: Where the image is.
        places: Where its picture shows the names of classes, see `pictures.name_places`.
        shown: Whether its picture shows the image.
        confidences: Whether its map holds a confidence for each pixel.
    """
    numbers = entry.numbers
    return {
        "image": entry.image,
        "path": path,
        "key": image_key(entry.image),
        "size": list(numbers.size),
        "state": "unchanged" if entry.corrected is None else "edited",
        "score": expected_error(entry),
        "confidence": mean_confidence(entry),
        "classes": [[each.id, each.pixels, each.confidence] for each in numbers.classes],
        "background": [numbers.background, background_confidence(entry)],
        "ignored": numbers.ignored,
        "places": places,
        "shown": shown,
        "confidences": confidences,
    }


def failed_record(image: str, path: str, reason: str) -> Record:
    """What the page knows of an image without labels."""
    return {"image": image, "path": path, "key": None, "state": "failed", "reason": reason, "classes": []}
