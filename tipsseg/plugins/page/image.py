"""Draw an image's files for the page, and build its record.

The map of an image begins with a comment: a signature of what the files were drawn from, and the record. It is written last, so
that an image with the same signature need not be drawn again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tipsseg.address import address_text
from tipsseg.errors import ImageError, OutputError, Words
from tipsseg.folder.entry import Entry, ObjectScore
from tipsseg.folder.files import Files, digest_of
from tipsseg.folder.find import REPORT_FILE
from tipsseg.folder.labels import Labels, is_same_picture
from tipsseg.folder.rank import mean_confidence
from tipsseg.folder.read import RunImage
from tipsseg.formats.npz import read_confidence
from tipsseg.images.access import absence, exists
from tipsseg.masks.labels import LabelSource, paint_objects
from tipsseg.plugins.page import pictures
from tipsseg.regions.components import every_region
from tipsseg.regions.objects import number_pixels
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, printable_path
from tipsseg.util.files import atomic_write, open_regular, read_regular, remove_file, set_aside
from tipsseg.util.json import json_bytes, parse, take

#: Increase this if the code draws different files.
_VERSION = 7

#: The folders of an image's files, with their suffixes.
_IMAGE_FILES = {"pictures": ".jpg", "thumbnails": ".jpg", "maps": ".js"}

_HEAD = b"// "

#: The hint for an image that is not where the run found it.
MOVED_HINT = Words("Set the folder of the images with {images}.")

PageRecord = Mapping[str, object]


def image_key(image: str) -> str:
    """Return a unique file name for an image, valid on every file system."""
    return hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Place:
    """The folder of a report. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open an existing folder, and mark it as a report. Raise OutputError if it is not empty and not a report."""
        self.folder = folder
        self._files = Files(folder)  # only to reject links out of the folder
        self._pages: dict[str, object] = {}  # the sha256 of the files of the page, as they were written
        if not any(path for path in folder.iterdir() if not path.name.startswith(".")):
            self._mark()
        else:
            with suppress(OSError, ValueError):
                known = parse(read_regular(folder / REPORT_FILE))
                if take(known, "tool", str) == "tipsseg":
                    self._pages = take(known, "pages", dict | None) or {}
                    return
            raise OutputError(
                folder,
                "the folder is neither empty nor a tipsseg report",
                Words("Choose another folder with {target}."),
            )

    def _mark(self) -> None:
        record = {"tool": "tipsseg", "report": 1, "pages": self._pages}
        atomic_write(self.folder / REPORT_FILE, json_bytes(record, indent=2) + b"\n")

    def write_pages(self, pages: Mapping[str, bytes]) -> list[Path]:
        """Write the files of the page in this order. Return the new paths of those that another program changed.

        Raise OutputError as `write` does.
        """
        aside = []
        for name, data in pages.items():
            path, digest = self.folder / name, hashlib.sha256(data).hexdigest()
            if os.path.lexists(path) and digest_of(path) not in (digest, self._pages.get(name)):
                aside.append(set_aside(path))
            self.write(path, data)
            self._pages[name] = digest
        self._mark()
        return aside

    def files(self, key: str) -> list[Path]:
        """Return the picture, the thumbnail and the map of an image."""
        return [self.folder / name / key[:2] / f"{key}{suffix}" for name, suffix in _IMAGE_FILES.items()]

    def read(self, key: str) -> tuple[str, PageRecord]:
        """Return the signature and the record of an image. Raise OSError or ValueError if a file is missing or damaged."""
        picture, thumbnail, label_map = self.files(key)
        for path in (picture, thumbnail):
            path.stat()
        with open_regular(label_map) as file:
            found = json.loads(file.readline().removeprefix(_HEAD))  # not `parse`: names need not be UTF-8
        if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], dict)):
            raise ValueError("not a signature and a record")
        return found[0], found[1]

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the folder. Raise OutputError if it cannot be written, or a link leads out of the folder."""
        self._files.refuse_outside(path)
        atomic_write(path, data)

    def remove_others(self, keys: Container[str]) -> None:
        """Remove the files of all images except these. Raise OutputError if a file cannot be removed."""
        for label_map in (self.folder / "maps").glob("??/*.js"):
            if label_map.stem not in keys:
                for path in self.files(label_map.stem):  # the map comes last
                    self._files.refuse_outside(path)
                    remove_file(path)


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image of the page.

    Attributes:
        entry: The manifest entry; after a correction, with the summary of the corrected labels.
        record: The image's record for the page.
        new: True if its files were drawn now.
        error: The image's error, or None.
        objects: Its objects.
    """

    entry: Entry
    record: PageRecord
    new: bool
    error: ImageError | None = None
    objects: tuple[ObjectScore, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageMaker:
    """Draw images for the page. `images` is the folder of the images, if they have moved; `others` has labels to compare with."""

    place: Place
    classes: tuple[LabelClass, ...]
    images: Path | None
    others: LabelSource | None = None

    def make(self, image: RunImage) -> DrawnImage:
        """Draw an image's files, unless they are up to date. Thread-safe. Raise OutputError if one cannot be written.

        An image that cannot be read gets a grey picture. An image whose labels cannot be read has no files.
        """
        try:
            return self._make(image)
        except ImageError as error:
            entry = image.entry
            record = failed_record(entry.image, address_text(image.path(self.images)), error.message)
            return DrawnImage(entry, record, True, error)

    def _make(self, image: RunImage) -> DrawnImage:
        path = image.path(self.images)
        fault: ImageError | None = None
        if not exists(path):
            fault = ImageError(path, absence(path), MOVED_HINT)
        elif not is_same_picture(image.entry, path, image.run.reader):
            fault = ImageError(path, "changed since it was labelled", "Label it again.")
        entry = image.entry
        others: LabelArray | None = None
        unread: ImageError | None = None
        try:
            given = None if self.others is None else self.others.read(image.ref(self.images), entry.mask.size)
            if given is not None:
                others, _ = paint_objects(given, entry.mask.size, self.classes)
        except ImageError as error:
            unread = error
        signature = self._signature(entry, path, fault, others)
        with suppress(OSError, ValueError):  # damaged, for example by a power loss
            before, record = self.place.read(image_key(entry.image))
            if before == signature:
                return DrawnImage(entry, record, False, fault or unread, image.objects())
        drawn = self._draw(image, image.labels(), others, signature, fault)
        return drawn if drawn.error else replace(drawn, error=unread)

    def _draw(
        self, image: RunImage, found: Labels, others: LabelArray | None, signature: str, fault: ImageError | None
    ) -> DrawnImage:
        """Write the files of an image; with a `fault`, a grey picture. The map comes last, with the signature."""
        path, entry, labels = image.path(self.images), image.entry, found.labels
        pixels = None
        if fault is None:
            try:
                pixels = image.run.reader.thumbnail(path)
            except ImageError as error:
                fault, signature = error, ""  # the signature does not depend on whether the image can be decoded
        shown = pictures.picture(pixels, labels.shape)
        confidence, npz = None, None if entry.corrected else image.file("npz")
        if npz is not None:
            with suppress(ImageError, OSError, ValueError):  # the page works without confidences
                confidence = read_confidence(npz, image.entry.mask.size)
        regions, number = every_region(labels, len(self.classes), found.instances)
        objects = number_pixels(enumerate(regions, start=1), (labels.shape[0], labels.shape[1]))
        facts, key, correction = entry.mask, image_key(entry.image), entry.correction
        is_accepted = correction is not None and correction.accepted and not correction.content
        record = {
            "image": entry.image,
            "path": address_text(path),
            "key": key,
            "size": list(facts.size),
            "state": "unchanged" if not entry.corrected else "accepted" if is_accepted else "edited",
            "confidence": mean_confidence(facts),
            "classes": [[each, facts.counts[each], facts.confidence.get(each, 0.0)] for each in facts.names],
            "background": [facts.counts.get(BACKGROUND, 0), facts.confidence.get(BACKGROUND)],
            "ignored": facts.ignored,
            "objects": number,
            "shown": pixels is not None,
            "confidences": confidence is not None,
            "labels": entry.base,
            "picture": facts.picture.pixels,
        }
        if correction is not None:
            record |= {"good": correction.accepted and entry.corrected, "imported": correction.saved}
        picture, thumbnail, label_map = self.place.files(key)
        self.place.write(picture, pictures.jpeg(shown))
        self.place.write(thumbnail, pictures.jpeg(pictures.thumbnail(shown, labels, self.classes)))
        begin = _HEAD + json.dumps([signature, record]).encode("ascii") + b"\n"
        self.place.write(label_map, begin + pictures.map_script(key, labels, confidence, objects, others))
        return DrawnImage(entry, record, True, fault, image.objects(found))

    def _signature(self, entry: Entry, path: Path, fault: ImageError | None, others: LabelArray | None) -> str:
        """Return a digest of what an image's files and its record are made from."""
        facts = (
            _VERSION,
            entry.version,
            entry.correction and entry.correction.text().decode(),
            printable_path(path),
            "" if fault is None else fault.reason,
            [(entry.id, entry.name, entry.colour) for entry in self.classes],
            None if others is None else hashlib.sha256(np.ascontiguousarray(others).tobytes()).hexdigest(),
        )
        return hashlib.sha256(json_bytes(facts)).hexdigest()


def failed_record(image: str, path: str, reason: str) -> PageRecord:
    return {"image": image, "path": path, "key": None, "state": "failed", "reason": reason, "classes": []}
