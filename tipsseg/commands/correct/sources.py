"""Read corrections of tipsseg's own: the output folder of another run, and the file that the page of `tipsseg report` saves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.commands.correct.strokes import draw_strokes, new_label, read_strokes
from tipsseg.errors import ImageError, InputError, OtherSchemaError
from tipsseg.formats import image_folders
from tipsseg.formats.base import Format
from tipsseg.formats.png import Png, read_named_masks
from tipsseg.masks.files import Source
from tipsseg.masks.records import Changes, ClassNames, Size, SourceImage, image_errors
from tipsseg.regions.components import every_region
from tipsseg.run.entry import MANIFEST_FILE
from tipsseg.run.read import Run, open_run
from tipsseg.run.record import RUN_FILE
from tipsseg.types import LabelArray
from tipsseg.util.files import is_folder
from tipsseg.util.json import json_bytes, read_value, short, take
from tipsseg.util.text import shell_word

#: The name of the page's format, in messages and records.
PAGE = "report"

#: How to import what `SourceRun` leaves out.
COPY = "To import the labels of the model too, copy the files elsewhere, and import the copy."


# ---- the output folder of another run ----


class RunMasks(Png):
    """The masks of a run: the path of each in the source, by image."""

    def __init__(self, masks: Mapping[str, str]) -> None:
        self._masks = masks

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        return read_named_masks(self._masks.items(), source, names)


class SourceRun:
    """The run whose output folder is, or contains, the source: the labels that a person edited count, not the model's.

    Attributes:
        uncorrected: The images that `select_corrected` skipped, as the source names them.
        lacking: The errors of corrected images whose masks are missing.
    """

    def __init__(self, top: Path, run: Run) -> None:
        """Index the files of a run."""
        self.uncorrected: list[str] = []
        self.lacking: list[ImageError] = []
        self._top, self._run = top, run
        self._masks = {image.mask: image.entry.image for image in run.images()}

    def masks_of(self, source: Source) -> RunMasks | None:
        """Return the format of all the run's masks; None if the source is not the whole folder or has no masks."""
        if Path(os.path.realpath(source.path)) != self._top or not len(self._run):
            return None
        self.lacking += self._run.faults.values()
        return RunMasks({image.entry.image: image.entry.place for image in self._run.images()})

    def select_corrected(self, images: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Yield the images that a person corrected, with their pictures. Raise InputError for a file made from the masks."""
        for source_image in images:
            path = Path(os.path.realpath(source_image.where))
            if path not in self._masks:
                top = shell_word(str(self._top))
                raise InputError(
                    f"{source_image.where}: it shows the labels of the model too, from the output folder {self._top}",
                    f"Import that folder itself. If you edited the file, import it there first: tipsseg correct {top} --from "
                    f"{shell_word(str(path))}. {COPY}",
                )
            image = self._run.image(self._masks[path])
            if image.corrected:
                yield replace(source_image, picture=image.entry.mask.picture.pixels)
            else:
                self.uncorrected.append(source_image.name)


def find_source_run(source: Source, output: Path, stack: ExitStack) -> SourceRun | None:
    """Return the run whose output folder is, or contains, the source.

    Return None for other sources, for files in `output` itself, and for a run by another version of tipsseg.

    Args:
        source: The source of the corrections.
        output: The output folder that imports the corrections.
        stack: The exit stack that closes the run.

    Raises:
        InputError: If the run is not finished, or its folder is in a zip archive.
    """
    path = Path(os.path.realpath(source.path))
    if not is_folder(path):
        folders = [
            {PurePosixPath(name).parent for name in source.find_name(each)} for each in (RUN_FILE, MANIFEST_FILE)
        ]
        if set.intersection(*folders):
            raise InputError(
                f"{source.path}: a zipped output folder of tipsseg",
                "Unzip it and import the folder, which imports corrected masks alone.",
            )
    for top in (path, *path.parents):
        if top != path and is_folder(path) and path.relative_to(top).parts[0] not in image_folders():
            continue
        if os.path.lexists(top / RUN_FILE):
            if top == Path(os.path.realpath(output)):
                return None
            try:
                return SourceRun(top, stack.enter_context(open_run(top)))
            except OtherSchemaError:
                return None  # its masks are taken like any tool's
    return None


# ---- the files of the review page ----


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

    name = PAGE

    def __init__(self, file: PageFile) -> None:
        self._file = file

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
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


def browser_of(saved: str) -> str:
    """Return the browser in `Correction.saved`."""
    return saved.partition(" ")[0]


def is_older(saved: str, imported: str) -> bool:
    """Return True if a page saved a file before one that was imported; see `Correction.saved`."""
    return bool(saved) and browser_of(saved) == browser_of(imported) and time_of(saved) < time_of(imported)


def time_of(saved: str) -> int:
    """Return the time in `Correction.saved`, in milliseconds; 0 if it is unknown."""
    return int(saved.partition(" ")[2] or 0)
