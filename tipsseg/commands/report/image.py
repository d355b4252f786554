"""Draw an image's files for the page, and build its record.

The map of an image begins with a comment: a signature of what the files were drawn from, and the record. It is written last, so
that an image with the same signature need not be drawn again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.address import address_text
from tipsseg.commands.inputs import REPORT_FILE
from tipsseg.commands.rank import background_confidence, mean_confidence
from tipsseg.commands.report import pictures
from tipsseg.errors import ImageError, OutputError
from tipsseg.formats.given import LabelSource, paint_objects
from tipsseg.formats.npz import read_confidence
from tipsseg.images.access import absence, exists, matches
from tipsseg.images.decoding import open_thumbnail
from tipsseg.regions.objects import number_pixels, numbered_objects
from tipsseg.run.entry import Entry
from tipsseg.run.files import Files
from tipsseg.run.read import RunImage
from tipsseg.types import LabelArray, LabelClass, printable_path
from tipsseg.util.files import atomic_write, open_regular, read_regular, remove_file
from tipsseg.util.json import json_bytes, parse, take

#: Increase this if the code draws different files.
_VERSION = 5

#: The folders of an image's files, with their suffixes.
_IMAGE_FILES = {"pictures": ".jpg", "thumbnails": ".jpg", "maps": ".js"}

_HEAD = b"// "

Record = Mapping[str, object]


def image_key(image: str) -> str:
    """Return a unique file name for an image, valid on every file system."""
    return hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Place:
    """The folder of a report. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open an existing folder, and mark it as a report. Raises OutputError if it is not empty and not a report."""
        self.folder = folder
        self._files = Files(folder)  # only to refuse links out of the folder
        mark = folder / REPORT_FILE
        if not any(path for path in folder.iterdir() if not path.name.startswith(".")):
            atomic_write(mark, json_bytes({"tool": "tipsseg", "report": 1}, indent=2) + b"\n")
        elif not _is_report(mark):
            raise OutputError(
                folder,
                "the folder is neither empty nor a tipsseg report",
                "Choose another folder with argument `target`.",
            )

    def files(self, key: str) -> list[Path]:
        """Return the picture, the thumbnail and the map of an image."""
        return [self.folder / name / key[:2] / f"{key}{suffix}" for name, suffix in _IMAGE_FILES.items()]

    def read(self, key: str) -> tuple[str, Record]:
        """Return the signature and the record of an image. Raises OSError or ValueError if a file is missing or damaged."""
        picture, thumbnail, label_map = self.files(key)
        for path in (picture, thumbnail):
            path.stat()
        with open_regular(label_map) as file:
            signature, record = parse(file.readline().removeprefix(_HEAD))
        return signature, record

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the folder. Raises OutputError if it cannot be written, or a link leads out of the folder."""
        self._files.refuse_outside(path)
        atomic_write(path, data)

    def remove_others(self, keys: Container[str]) -> None:
        """Remove the files of all images except these. Raises OutputError if a file cannot be removed."""
        for label_map in (self.folder / "maps").glob("??/*.js"):
            for path in () if label_map.stem in keys else self.files(label_map.stem):  # the map comes last
                self._files.refuse_outside(path)
                remove_file(path)


def _is_report(mark: Path) -> bool:
    try:
        return take(parse(read_regular(mark)), "tool", str) == "tipsseg"
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class ImageResult:
    """An image of the page.

    Attributes:
        entry: The manifest entry; after a correction, with the summary of the corrected labels.
        record: The image's record for the page.
        new: True if its files were drawn now.
        error: The image's error, or None.
    """

    entry: Entry
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
            return ImageResult(entry, record, True, error)

    def _make(self, image: RunImage) -> ImageResult:
        path, fault = image.path(self.images), self._picture_error(image)
        others, unread_labels = self._others(image)
        current = image.current()
        entry, labels = current.entry, current.labels.labels
        key = image_key(entry.image)
        signature = self._signature(entry, path, fault, others)
        record = self._drawn(key, signature)
        if record is not None:
            return ImageResult(entry, record, False, fault or unread_labels)
        confidence = None if entry.corrected else _confidence(image)
        shown, unread = self._picture(image, labels, fault)
        objects = None
        if current.labels.layers is None:  # no page corrects classes that overlap
            regions = numbered_objects(labels, len(self.classes), current.labels.instances)
            objects = number_pixels(regions, (labels.shape[0], labels.shape[1]))
        places = pictures.name_places(labels, len(self.classes))
        record = shown_image(
            entry, address_text(path), places, shown=unread is None, confidences=confidence is not None
        )
        record = {**record, "labels": None if objects is None else image.digest()}
        if unread is not fault:  # the signature does not depend on whether the image can be decoded
            signature = ""
        picture, thumbnail, label_map = self.place.files(key)
        self.place.write(picture, pictures.jpeg(shown))
        self.place.write(thumbnail, pictures.jpeg(pictures.thumbnail(shown, labels, self.classes)))
        begin = _HEAD + json.dumps([signature, record]).encode("ascii") + b"\n"
        self.place.write(label_map, begin + pictures.map_script(key, labels, confidence, objects, others))
        return ImageResult(entry, record, True, unread or unread_labels)

    def _drawn(self, key: str, signature: str) -> Record | None:
        """Return an image's record if its files were drawn from the same; None if not, or if one is missing or damaged."""
        try:
            before, record = self.place.read(key)
        except (OSError, ValueError):  # damaged, for example by a power loss
            return None
        return record if before == signature else None

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

    def _signature(self, entry: Entry, path: Path, fault: ImageError | None, others: LabelArray | None) -> str:
        """Return a digest of what an image's files and its record are made from."""
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
