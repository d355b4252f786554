"""Draw an image's files for the page, and build its record.

The map of an image begins with a comment: a signature of what the files were drawn from, and the record. It is written last, so
that an image with the same signature need not be drawn again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.address import address_text
from tipsseg.errors import ImageError, OutputError, Words
from tipsseg.folder.entry import Entry, ObjectScore
from tipsseg.folder.files import Files, digest_of
from tipsseg.folder.find import REPORT_FILE
from tipsseg.folder.labels import Labels, is_same_picture
from tipsseg.folder.rank import mean_confidence
from tipsseg.folder.read import RunImage
from tipsseg.formats.npz import read_confidence
from tipsseg.formats.png import encode_picture, encode_runs
from tipsseg.images.access import absence, exists
from tipsseg.masks.labels import LabelSource, paint_objects
from tipsseg.regions.components import every_region
from tipsseg.regions.drawing import colour_labels
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
        shown = picture(pixels, labels.shape)
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
        begin = _HEAD + json.dumps([signature, record]).encode("ascii") + b"\n"
        label_map = begin + map_script(key, labels, confidence, objects, others)
        pictures = jpeg(shown), jpeg(thumbnail(shown, labels, self.classes))
        for path, data in zip(self.place.files(key), (*pictures, label_map), strict=True):
            self.place.write(path, data)
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


#: The longest side, in pixels, of a picture and of a thumbnail.
PICTURE_SIDE = 800
_THUMBNAIL_SIDE = 240

#: The opacity of class colours on a thumbnail.
_TINT = 0.45

#: The colours of outlines, of ignored pixels, and of a missing image.
_OUTLINE = (20, 20, 20)
_IGNORED = (128, 128, 128)
_NO_IMAGE = 200


def shown_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the display size (h, w) of an image of `size`: no side longer than `side`, never enlarged."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def picture(image: NDArray[np.uint8] | None, size: tuple[int, int]) -> Image.Image:
    """Scale an image [H, W, 3] RGB uint8 to the `size` (H, W) of its labels or smaller. Without an image, return a grey picture."""
    height, width = shown_size(size, PICTURE_SIDE)
    if image is None:
        return Image.new("RGB", (width, height), (_NO_IMAGE,) * 3)
    return Image.fromarray(image).resize((width, height), Image.Resampling.BOX)


def thumbnail(shown: Image.Image, labels: LabelArray, classes: Sequence[LabelClass]) -> Image.Image:
    """Draw a thumbnail of a picture with the colours and outlines of its labels [H, W]."""
    height, width = shown_size(labels.shape, _THUMBNAIL_SIDE)
    small = shown.resize((width, height), Image.Resampling.BOX)
    ids = resample(labels, (height, width))  # [h, w]
    tinted = Image.blend(small, Image.fromarray(colour_labels(ids, classes, _IGNORED)), _TINT)
    tinted.paste(small, mask=Image.fromarray(ids == BACKGROUND))
    tinted.paste(_OUTLINE, mask=Image.fromarray(_outlines(ids)))
    return tinted


def resample(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resample values [H, W] to a new size (h, w): the value of the pixel in which the middle of a new pixel lies."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def jpeg(shown: Image.Image) -> bytes:
    return encode_picture(shown, format="JPEG", quality=82)


def map_script(
    key: str,
    labels: LabelArray,
    confidence: NDArray[np.float32] | None,
    objects: NDArray[np.uint32] | None = None,
    others: LabelArray | None = None,
) -> bytes:
    """Encode labels [H, W], the numbers of objects, other labels, and confidences in 0..1 as a script, at the size of the picture.

    Each is a PNG as base64, because a page opened from disk may not read the pixels of an image file. It has as many bytes per
    pixel as the largest number needs, one below the other: first the lowest byte of all pixels, then the next one. The confidences
    are times 255. None stands for what is unknown.
    """
    size = shown_size(labels.shape, PICTURE_SIDE)
    shares = None
    if confidence is not None:
        shares = np.rint(np.clip(resample(confidence.astype(np.float32), size), 0, 1) * 255).astype(np.uint8)
    # OpenCV resamples no unsigned numbers of 32 bits; there are fewer objects than 2 ** 31.
    numbers = None if objects is None else resample(objects.astype(np.int32), size)
    maps = resample(labels, size), numbers, None if others is None else resample(others, size), shares
    return script("map", key, *(None if values is None else _encode(values) for values in maps))


def _encode(values: NDArray[Any]) -> dict[str, object]:
    """Return the PNG of whole numbers [h, w] and the number of their bytes (see `map_script`)."""
    planes = max((int(values.max()).bit_length() + 7) // 8, 1)
    stacked = np.concatenate([(values >> 8 * plane).astype(np.uint8) for plane in range(planes)])  # [planes * h, w]
    png = base64.b64encode(encode_runs(Image.fromarray(stacked))).decode("ascii")
    return {"planes": planes, "url": f"data:image/png;base64,{png}"}


def _outlines(ids: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return a mask [h, w] of pixels whose right or lower neighbour has a different id."""
    outlines = np.zeros(ids.shape, np.bool_)
    outlines[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outlines[:-1] |= ids[:-1] != ids[1:]
    return outlines


def script(kind: str, *values: object) -> bytes:
    """Return an ASCII script that passes values to the page: `tipsseg.<kind>(...)`.

    `<`, `>`, `&` and line separators are escaped, so that no value can end the script or a comment of the page.
    """
    texts = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) for value in values)
    arguments = ",".join(texts)
    for letter in "<>&":
        arguments = arguments.replace(letter, f"\\u{ord(letter):04x}")
    return f"tipsseg.{kind}({arguments});\n".encode("ascii")
