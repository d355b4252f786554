"""The images of output folders as samples of a data set, read one by one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from PIL import Image

from tipsseg._version import __version__
from tipsseg.address import address_text
from tipsseg.errors import ImageError, InputError
from tipsseg.formats.base import output_name
from tipsseg.formats.coco import annotation_records, encode_masks
from tipsseg.formats.dataset import Dataset, Sample
from tipsseg.formats.png import encode_mask, encode_picture
from tipsseg.formats.yolo import is_for_validation
from tipsseg.images.access import absence, absolute, container_of, exists, matches
from tipsseg.images.decoding import ImageReader
from tipsseg.images.upright import orientation_of
from tipsseg.options.run import DatasetOptions
from tipsseg.run.labels import scored_objects
from tipsseg.run.read import Run, RunImage
from tipsseg.run.results import Deriver
from tipsseg.run.state import key_of
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.json import json_bytes

TRAIN, VALIDATION = "train", "validation"

#: Formats and modes of pictures that every loader reads as tipsseg does.
_COMMON = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_MODES = frozenset({"L", "RGB", "RGBA", "P"})

#: Images that are looked up, to tell whether all have moved.
_LOOKED_UP = 100

#: Bytes that a mask and the facts of an image may take, to plan shards.
_LABEL_BYTES = 8192


class Samples:
    """The images of runs as samples.

    Attributes:
        form: The format.
        fraction: The fraction of images for the validation split.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        names: set[str] | None,
        form: Dataset,
        options: DatasetOptions,
        images: Path | None,
        val_fraction: float | None,
    ) -> None:
        self.runs, self.names, self.form, self.options, self._images = runs, names, form, options, images
        self.classes, self.facts = runs[0].classes, runs[0].context.info
        self.fraction = runs[0].context.files.val_fraction if val_fraction is None else val_fraction
        files = runs[0].context.files
        classes = [[entry.name, entry.part_of] for entry in self.classes]
        self.settings = json_bytes(
            [form.name, classes, options.link_images, files.instances, str(files.min_area), files.names, __version__]
        )
        self._derivers = {id(run): Deriver(run.context) for run in runs}

    @property
    def splits(self) -> tuple[str, ...]:
        return (TRAIN, VALIDATION) if self.fraction else (TRAIN,)

    def images(self, split: str) -> Iterator[RunImage]:
        """Yield the images of a split, sorted by name. Raise InputError for an image in two runs."""
        before = None
        for image in heapq.merge(*(run.images() for run in self.runs), key=lambda image: key_of(image.entry.image)):
            if before is not None and before.entry.image == image.entry.image:
                raise InputError(
                    f"{before.run.output} and {image.run.output} both have labels of {image.entry.image}",
                    "Join the folders with tipsseg merge, which takes the corrected one.",
                )
            before = image
            validates = is_for_validation(image.entry.image, self.fraction or 0.0)
            if validates == (split == VALIDATION) and (self.names is None or image.entry.image in self.names):
                yield image

    def refuse_moved(self) -> None:
        """Raise InputError if none of the first images is there."""
        first = [image.path(self._images) for image in islice(self.images(TRAIN), _LOOKED_UP)]
        if first and not any(map(exists, first)):
            raise InputError(
                f"{address_text(first[0])}: {absence(first[0])}, nor any of the next images",
                "Set the folder of the images with argument `images`.",
            )

    def version_of(self, image: RunImage) -> bytes:
        """Return what changes if an image must be written again."""
        entry = image.entry
        version = image.digest() if image.edited else entry.version
        path = self._link(image) if self.options.link_images else ""
        return json_bytes([entry.image, version, entry.corrected, asdict(entry.input), path])

    def _link(self, image: RunImage) -> str:
        """Return the path of an image as a data set stores it."""
        return printable_path(absolute(image.path(self._images)))

    def size_of(self, image: RunImage) -> int:
        """Return the bytes of an image in a shard, estimated."""
        return _LABEL_BYTES + (0 if self.options.link_images else image.entry.input.size)

    def sample(self, image: RunImage) -> Sample | ImageError:
        """Read an image with its labels. Thread-safe."""
        ref, run = image.ref(self._images), image.run
        try:
            if not matches(image.entry.input, ref.path):
                reason = "changed since it was labelled" if exists(ref.path) else absence(ref.path)
                raise ImageError(
                    ref.path, reason, "Set the folder of the images with argument `images`, or label it again."
                )
            current = image.current()
            entry, labels, size = current.entry, current.labels, current.entry.numbers.size
            every = scored_objects(labels, run.classes, entry.facts.objects, None, None)
            objects = self._derivers[id(run)].objects(entry, labels, every)
            records = annotation_records(objects, encode_masks(objects, size), run.classes)
            picture, suffix, encoded = None, ref.relative.suffix, False
            if not self.options.link_images:
                picture, suffix, encoded = _picture(ref, size, run.reader)
            elif container_of(ref.path) is not None:
                raise ImageError(
                    ref.path, "inside another file, so no link leads to it", "Leave out argument `link_images`."
                )
        except ImageError as error:
            return error
        return Sample(
            name=printable_path(ref.relative),
            key=printable_path(output_name(ref.relative, run.context.files.names)),
            path=self._link(image) if self.options.link_images else "",
            picture=picture,
            suffix=suffix,
            mask=encode_mask(labels.labels, run.classes),
            size=size,
            names=tuple(run.classes[each.id - 1].name for each in entry.numbers.classes),
            objects=records,
            corrected=entry.corrected,
            encoded=encoded,
        )


def _picture(ref: ImageRef, size: tuple[int, int], reader: ImageReader) -> tuple[bytes, str, bool]:
    """Return the bytes of an image, their suffix, and True if they are a new PNG: of its upright pixels, as the model saw them."""
    with reader.header(ref.path) as image:
        picture = image.picture
        is_common = picture.format in _COMMON and picture.mode in _MODES and not (image.deep or image.pages)
        if is_common and orientation_of(picture) == 1 and reader.stretch is None:
            image.source.seek(0)
            return image.source.read(), _COMMON[str(picture.format)], False
    return encode_picture(Image.fromarray(reader.pixels(ref.path, size))), ".png", True
