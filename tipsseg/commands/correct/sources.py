"""Read corrections of tipsseg's own: the output folder of another run, and the file that the page of `tipsseg report` saves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from tipsseg.commands.correct.strokes import draw_strokes, new_label, read_strokes
from tipsseg.corrections.files import Source
from tipsseg.corrections.image_names import ImageNames
from tipsseg.corrections.records import ClassNames, PixelLabels, Size, SourceImage, image_errors
from tipsseg.errors import ImageError, InputError, OtherSchemaError, Words
from tipsseg.folder.mask import read_sealed
from tipsseg.formats import image_folders
from tipsseg.formats.base import Format
from tipsseg.formats.npz import DAMAGE, encode_arrays
from tipsseg.formats.png import Png, read_named_masks
from tipsseg.regions.components import every_region
from tipsseg.run.entry import MANIFEST_FILE
from tipsseg.run.labels import Labels
from tipsseg.run.read import Run, RunImage, open_run
from tipsseg.run.record import RUN_FILE
from tipsseg.types import BACKGROUND, ignore_id, label_dtype
from tipsseg.util.files import RECORD_LIMIT, is_folder
from tipsseg.util.json import read_value, short, take
from tipsseg.util.text import pluralize, shell_word

#: The name of the page's format, in messages and records.
PAGE = "report"

_EVERYTHING = Words("{everything} imports all labels, the model's too")


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
        self._top = top
        self._run, self._names = run, ImageNames(run.cache.names())
        self._by_content = dict[str, list[str]]()
        #: The image of each file, and whether the file has its labels; the image is "" for files of the whole run.
        self._files = {image.mask: (image.entry.image, True) for image in run.images()}
        self._files |= {
            run.files.path(row.place): (image, False)
            for image in ("", *run.cache.names())
            for row in run.cache.files(image).values()
            if row.is_file
        }

    def masks_of(self, source: Source) -> RunMasks | None:
        """Return the format of all the run's masks; None if the source is not the whole folder or has no masks."""
        if Path(os.path.realpath(source.path)) != self._top or not len(self._run):
            return None
        self.lacking += self._run.faults.values()
        return RunMasks({image.entry.image: image.entry.place for image in self._run.images()})

    def has_other_picture(self, source_image: SourceImage, image: RunImage) -> bool:
        """Return True if the digests of an image in the source and of the one with the same name differ."""
        own = self._own(source_image)
        digests = self._run.image(own).entry.input.sha256 if own else None, image.entry.input.sha256
        return None not in digests and digests[0] != digests[1]

    def same_picture(self, source_image: SourceImage, run: Run) -> str | None:
        """Return the only image of `run` with the bytes of an image in the source; None if there is none."""
        own = self._own(source_image)
        if not own:
            return None
        if not self._by_content:
            for entry in run.cache.entries():
                self._by_content.setdefault(str(entry.input.sha256), []).append(entry.image)
        found = self._by_content.get(self._run.image(own).entry.input.sha256 or "", [])
        return found[0] if len(found) == 1 else None

    def _own(self, source_image: SourceImage) -> str:
        """Return the name of an image of the source in its run; "" if it has none."""
        own, _ = self._files.get(Path(os.path.realpath(source_image.where)), ("", False))
        return own or self._names.find(source_image.name) or ""

    def select_corrected(self, images: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Yield the images that a person corrected. Raise InputError for a file made from the masks."""
        for source_image in images:
            path = Path(os.path.realpath(source_image.where))
            image, has_labels = self._files.get(path, ("", False))
            if path in self._files and not has_labels:
                top = shell_word(str(self._top))
                raise InputError(
                    f"{source_image.where}: it shows the labels of the model too, from the output folder {self._top}",
                    f"Import that folder itself. If you edited the file, import it there first: tipsseg correct {top} --from "
                    f"{shell_word(str(path))}. Or " + _EVERYTHING + ".",
                )
            if not has_labels or self._run.image(image).corrected:
                yield source_image
            else:
                self.uncorrected.append(source_image.name)


def find_source_run(source: Source, output: Path, stack: ExitStack, *, everything: bool) -> SourceRun | None:
    """Return the run whose output folder is, or contains, the source.

    Return None for other sources, for files in `output` itself, and for a run by another version of tipsseg.

    Args:
        source: The source of the corrections.
        output: The output folder that imports the corrections.
        stack: The exit stack that closes the run.
        everything: True to import all labels, not only corrected ones.

    Raises:
        InputError: If the run is not finished, or its folder is in a zip archive.
    """
    path = Path(os.path.realpath(source.path))
    if not is_folder(path) and not everything:
        folders = [
            {PurePosixPath(name).parent for name in source.find_name(each)} for each in (RUN_FILE, MANIFEST_FILE)
        ]
        if set.intersection(*folders):
            raise InputError(
                f"{source.path}: a zipped output folder of tipsseg",
                "Unzip it and import the folder, or " + _EVERYTHING + ".",
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


# ---- corrections.json of the report page ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageImage:
    """The changes of an image on a page, as its file has them.

    Attributes:
        image: The name of the image.
        labels: The digest of the labels that the page shows.
        objects: The new class of each changed region.
        strokes: See `strokes.read_strokes`.
        good: See `SourceImage.accepted`.
    """

    image: str
    labels: str
    objects: list[object]
    strokes: list[object] = field(default_factory=list)
    good: bool | None = None


class PageCorrections(Format):
    """The corrections that a page saved, for the run that takes them.

    The page numbers the regions of an image as `every_region` does in the mask that it shows. The file has `RunImage.digest`,
    so that corrections of other objects are rejected. It has all changes since the page was written, also those that were imported
    before: they are made on the labels that the page shows, which the mask keeps inside.
    """

    name = PAGE

    def __init__(self, corrections: list[object], saved: str, run: Run) -> None:
        self._corrections, self._saved, self._run = corrections, saved, run

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        where = source.display_path(source.names[0])
        for number, correction in enumerate(self._corrections, start=1):
            with image_errors(where, f"correction {number}"):
                changes = read_value(_PageImage, correction if isinstance(correction, dict) else {}, "")
            changes = replace(changes, image=self._run.now(changes.image) or changes.image)
            read = partial(_read_image, self._run, changes, self._saved, names)
            made_on, accepted = changes.labels, changes.good
            yield SourceImage(changes.image, where, read, made_on=made_on, accepted=accepted, saved=self._saved)


def find_page(source: Source, run: Run) -> PageCorrections | None:
    """Return the corrections in a corrections.json; None for any other source. `run` is the run that takes them."""
    if len(source.names) != 1 or not source.names[0].lower().endswith(".json"):
        return None
    try:
        value = source.json(source.names[0])
    except ImageError:
        if source.names[0].lower().startswith("corrections"):
            raise
        return None  # another reader says why it cannot be read
    if not (isinstance(value, dict) and value.get("tool") == "tipsseg" and isinstance(value.get("corrections"), list)):
        return None
    if not value["corrections"]:
        raise InputError(f"{source.path}: no changes in it", "Change something on the page, and save the file again.")
    with image_errors(source.display_path(source.names[0])):
        browser, saved = take(value, "browser", str | None) or "", take(value, "saved", int | None) or 0
    return PageCorrections(value["corrections"], f"{browser.replace(' ', '')} {saved}" if browser else "", run)


def _read_image(run: Run, changes: _PageImage, saved: str, names: ClassNames, size: Size) -> PixelLabels:
    """Return the labels of an image with the new classes of its regions, and the strokes above them.

    Raise ValueError if its labels are not those that the page showed, or a record is damaged.
    """
    image, digest = changes.image, changes.labels
    if image not in run:
        raise ValueError(f"the run has no image {short(image)}; write the page of this folder again")
    stored = run.image(image)
    before = stored.entry.correction
    (browser, when), (last_browser, last) = map(_split_saved, (saved, saved if before is None else before.saved))
    if browser == last_browser and when < last:
        raise ValueError(f"a file that the page saved later was imported for {short(image)}: import the newest one")
    base: Labels | None = None
    if stored.digest() == digest:
        base = stored.labels()
    elif before is not None and before.before == digest and before.format == PAGE:
        base = read_base(stored) if browser == last_browser else None
    if base is None:
        work = f"{pluralize(len(changes.objects), 'region')} and {pluralize(len(changes.strokes), 'stroke')}"
        raise ValueError(
            f"the labels of {short(image)} were changed elsewhere since the page was written, so its {work} do not fit: restore "
            "these labels, or write the page again and start with them"
        )
    labels = base.labels.copy()
    regions, _ = every_region(labels, len(run.classes), base.instances)
    for record in changes.objects:
        number = take(record, "object", int)
        if not 1 <= number <= len(regions):
            raise ValueError(f"{short(image)} has {len(regions)} regions, but not number {number}")
        y, x, h, w = regions[number - 1].box
        labels[y : y + h, x : x + w][regions[number - 1].mask] = new_label(record, names)
    drawn = draw_strokes(labels, read_strokes(changes.strokes, names, size))
    return PixelLabels(drawn, ignores=True, instances=base.instances)


def _split_saved(saved: str) -> tuple[str, int]:
    """Return the browser and the time in `Correction.saved`."""
    browser, _, when = saved.partition(" ")
    return browser, int(when or 0)


#: The size limit of unpacked labels that a page shows, in bytes: 6 for each pixel.
BASE_LIMIT = 6 << 30


def encode_base(labels: Labels) -> bytes:
    """Return labels that a page shows, which its later changes are made on."""
    arrays = {"labels": labels.labels, **({} if labels.instances is None else {"instances": labels.instances})}
    return encode_arrays(**arrays)


def read_base(image: RunImage) -> Labels | None:
    """Return the labels that a page showed of an image that was corrected on it; None if they are missing or damaged."""
    bulk, size, classes = image.entry.bulk, image.entry.mask.size, len(image.run.classes)
    with suppress(OSError, ValueError, *DAMAGE):
        if (data := bulk.unpack("base", BASE_LIMIT)) is not None:
            with np.load(BytesIO(data)) as stored:
                labels, instances = stored["labels"], stored.get("instances")
        elif (data := bulk.unpack("model", RECORD_LIMIT)) is not None:
            with Image.open(BytesIO(data)) as picture:
                labels = np.array(picture).astype(label_dtype(classes))
            instances = read_sealed(data).objects(size)
        else:
            return None
        known = [BACKGROUND, *range(1, classes + 1), ignore_id(classes)]
        if labels.dtype == label_dtype(classes) and labels.shape == size and not np.setdiff1d(labels, known).size:
            return Labels(labels=labels, instances=instances)
    return None
