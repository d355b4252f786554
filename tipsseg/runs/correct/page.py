"""Read corrections.json, in which the page of `tipsseg report` saves new classes of objects.

The page numbers the objects of an image as `objects.numbered_objects` does in the mask that it shows. The file has
`RunImage.digest`, so that corrections of other objects are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from tipsseg.errors import ImageError
from tipsseg.formats.base import Format
from tipsseg.formats.corrections import ClassNames, PixelLabels, Size, SourceImage, image_errors
from tipsseg.formats.source import Source
from tipsseg.regions.objects import numbered_objects
from tipsseg.run.read import Run
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.json_values import short, take

#: The name of this format, in messages and records.
FORMAT = "report"


class PageCorrections(Format):
    """The corrections of a page, for the run that takes them."""

    name = FORMAT

    def __init__(self, corrections: list[object], run: Run) -> None:
        self._corrections, self._run = corrections, run

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        where = source.display_path(source.names[0])
        for number, correction in enumerate(self._corrections, start=1):
            with image_errors(where, f"correction {number}"):
                image, objects = take(correction, "image", str), take(correction, "objects", list)
                labels = take(correction, "labels", str)
            yield SourceImage(image, where, partial(_read_image, self._run, image, labels, objects, names))


def find_page(source: Source, run: Run) -> PageCorrections | None:
    """Return the corrections in a corrections.json; None for any other source. `run` is the run that takes them."""
    if len(source.names) != 1 or not source.names[0].lower().endswith(".json"):
        return None
    value = None
    with suppress(ImageError):  # another reader says why it cannot be read
        value = source.json(source.names[0])
    if not (isinstance(value, dict) and value.get("tool") == "tipsseg" and isinstance(value.get("corrections"), list)):
        return None
    return PageCorrections(value["corrections"], run)


def _read_image(run: Run, image: str, digest: str, objects: list[object], names: ClassNames, size: Size) -> PixelLabels:
    """Return the labels of an image with the new classes. Raises ValueError if its labels are not those that the page showed."""
    if image not in run:
        raise ValueError(f"the run has no image {short(image)}; write the page of this folder again")
    stored = run.image(image)
    current, before = stored.current(), stored.entry.correction
    labels = current.labels.labels.copy()
    if before is not None and before.before == digest and not stored.edited:
        return PixelLabels(labels, ignores=True)  # these corrections were imported before
    if stored.digest() != digest:
        raise ValueError(f"the labels of {short(image)} changed since the page was written: write the page again")
    regions = numbered_objects(labels, len(run.classes), current.labels.instances)
    for record in objects:
        number = take(record, "object", int)
        if not 1 <= number <= len(regions):
            raise ValueError(f"{short(image)} has {len(regions)} objects, but not number {number}")
        y, x, h, w = regions[number - 1].box
        new = _class_of(record, names, len(run.classes))
        labels[y : y + h, x : x + w][regions[number - 1].mask] = new
    return PixelLabels(labels, ignores=True)


def _class_of(record: object, names: ClassNames, classes: int) -> int:
    value: Mapping[str, Any] = record if isinstance(record, dict) else {}
    if value.get("ignore") is True:
        return ignore_id(classes)
    return BACKGROUND if value.get("class", "") is None else names.id_of(value.get("class"))
