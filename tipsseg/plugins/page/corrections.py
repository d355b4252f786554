"""Read the files that the page of `tipsseg report` saves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.formats.base import Format
from tipsseg.formats.records import Changes, ClassNames, Size, SourceImage, image_errors, time_of
from tipsseg.formats.source import Source
from tipsseg.plugins.page.strokes import draw_strokes, new_label, read_strokes
from tipsseg.regions.components import every_region
from tipsseg.types import LabelArray
from tipsseg.util.files import is_folder
from tipsseg.util.json import json_bytes, read_value, short, take


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageImage:
    """The changes of an image on a page, as its file has them.

    Attributes:
        image: The name of the image.
        labels: The digest of the labels that the page shows (see `Entry.base`).
        picture: The digest of the upright pixels of the picture; "" if the page did not know it.
        objects: The new class of each changed region.
        strokes: See `strokes.read_strokes`.
        good: See `SourceImage.accepted`.
    """

    image: str
    labels: str
    picture: str = ""
    objects: list[object]
    strokes: list[object] = field(default_factory=list)
    good: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """A file that a page saved.

    Attributes:
        path: The file.
        saved: The browser that saved it, and when, in milliseconds: "k3b 1760000000000".
        corrections: Its images.
    """

    path: Path
    saved: str
    corrections: list[object]


class PageCorrections(Format):
    """The corrections that a page saved.

    The page numbers the regions of an image as `every_region` does in the mask that it shows. The file has all changes since the
    page was written, also those that were imported before: they are made on the labels that the page shows.
    """

    name = "report"
    only_changes = True

    def __init__(self, file: PageFile | None = None) -> None:
        self._file = file

    def detect(self, source: Source) -> bool:
        return bool(find_pages(source))

    def parts(self, source: Source) -> Sequence[Format]:
        pages = find_pages(source)
        if not pages:
            raise InputError(f"{source.path}: not a file of the review page", "Pass the file that the page saved.")
        return [PageCorrections(page) for page in pages]

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        assert self._file is not None  # see `parts`
        where, saved = self._file.path, self._file.saved
        for number, correction in enumerate(self._file.corrections, start=1):
            with image_errors(where, f"correction {number}"):
                changes = read_value(_PageImage, correction if isinstance(correction, dict) else {}, "")
            read = partial(_read_changes, changes, names)
            yield SourceImage(changes.image, where, read, accepted=changes.good, saved=saved, picture=changes.picture)


def find_pages(source: Source) -> list[PageFile]:
    """Return the files that pages saved in a source, in the order of their saving; [] for any other source."""
    folder = is_folder(source.path)
    names = [
        name
        for name in source.find_suffix(".json")
        if len(source.names) == 1 or (folder and _PAGE_FILE.fullmatch(name))
    ]
    pages = [page for name in names if (page := _read_page(source, name)) is not None]
    return sorted(pages, key=lambda page: (time_of(page.saved), page.path))


def _read_page(source: Source, name: str) -> PageFile | None:
    where = source.display_path(name)
    try:
        value = source.json(name)
    except ImageError:
        if _PAGE_FILE.fullmatch(name):
            raise
        return None  # another reader says why it cannot be read
    if not (isinstance(value, dict) and value.get("tool") == "tipsseg" and isinstance(value.get("corrections"), list)):
        return None
    if not value["corrections"]:
        raise InputError(f"{where}: no changes in it", "Change something on the page, and save the file again.")
    with image_errors(where):
        browser, saved = take(value, "browser", str | None) or "", take(value, "saved", int | None) or 0
    saved_by = f"{browser.replace(' ', '')} {saved}" if browser else ""
    return PageFile(path=where, saved=saved_by, corrections=value["corrections"])


#: The names of files that a page saves, also as browsers change them.
_PAGE_FILE = re.compile(r"corrections.*\.json", re.IGNORECASE)


def _read_changes(changes: _PageImage, names: ClassNames, size: Size) -> Changes:
    """Return the changes of an image on a page. Raise ValueError if a record is damaged."""
    strokes = read_strokes(changes.strokes, names, size)
    for record in changes.objects:
        new_label(record, names)

    def draw(labels: LabelArray, instances: NDArray[np.int32] | None) -> LabelArray:
        regions, _ = every_region(labels, names.count, instances)
        labels = labels.copy()
        for record in changes.objects:
            number = take(record, "object", int)
            if not 1 <= number <= len(regions):
                raise ValueError(f"{short(changes.image)} has {len(regions)} regions, but not number {number}")
            y, x, h, w = regions[number - 1].box
            labels[y : y + h, x : x + w][regions[number - 1].mask] = new_label(record, names)
        return draw_strokes(labels, strokes)

    content = sha256(json_bytes([changes.objects, changes.strokes])).hexdigest()
    return Changes(base=changes.labels, draw=draw, content=content)
