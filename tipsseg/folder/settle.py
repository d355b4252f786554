"""Bring the derived files of a folder up to date: label, convert and correct end with it.

A file is written if it is missing or shows older labels. A mask that a person changed in place becomes a correction first. Files
that a person changed are not overwritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, Words
from tipsseg.folder.entry import SEALED, Entry, FileRow, input_path, pack_objects
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.labels import is_same_picture, known_objects, read_labels, scored_objects
from tipsseg.folder.moving import model_files
from tipsseg.folder.read import RunImage
from tipsseg.folder.results import Derived, Due, accept_command, find_grid
from tipsseg.folder.summary import TotalsSum
from tipsseg.formats import FORMATS, format_name
from tipsseg.formats.base import ImageLabels
from tipsseg.images.access import absence, exists, matches
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import stamp
from tipsseg.util.threads import map_in_order


@dataclass(slots=True)
class Settled:
    """The result of settling a folder.

    Attributes:
        formats: The number of images whose files were written, by format.
        adopted: The number of masks that a person had changed in place.
        edited: Files that a person changed, and that stay because the labels of their images did not change.
        without_picture: The number of files that need a picture that is missing or has changed, by format.
        quality: The agreement of new polygons with the labels.
        remarks: Images whose grid users do not expect, by note (see `Grid.remark`).
        failed: Images whose labels or pictures cannot be read.
        run_files: The files for the whole run that were written.
    """

    formats: Counter[str] = field(default_factory=Counter)
    adopted: int = 0
    edited: list[Path] = field(default_factory=list)
    without_picture: Counter[str] = field(default_factory=Counter)
    quality: PolygonQuality = field(default_factory=PolygonQuality)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    failed: list[ImageError] = field(default_factory=list)
    run_files: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Item:
    """An image to settle, with its new record and files once they are made.

    Attributes:
        ref: The image.
        entry: Its record.
        rows: Its files by place.
        due: Its formats that must be written.
        asked: The formats that the user named for it.
        adopted: True if a person had changed its mask in place.
        derived: Its new files.
        lacking: The formats that lack the picture.
        remark: The note about its grid (see `Grid.remark`).
    """

    ref: ImageRef
    entry: Entry
    rows: dict[str, FileRow]
    due: Due
    asked: Sequence[str] = ()
    adopted: bool = False
    derived: Derived = field(default_factory=Derived)
    lacking: tuple[str, ...] = ()
    remark: str = ""


def settle(folder: OutputFolder, jobs: int, *, images: Path | None = None) -> Settled:
    """Write the derived files of a folder that are missing or out of date, and return what became of them. See `settle_images`."""
    settled = Settled()
    for _ in settle_images(folder, settled, jobs, images=images):
        pass
    return settled


def adopt_masks(folder: OutputFolder) -> None:
    """Write into the masks that a person changed in place that they are theirs. Those that cannot be read are left to `settle`."""
    for entry in folder.cache.entries():
        if entry.state != SEALED:
            with suppress(ImageError):
                folder.cache.note(folder.adopt(entry))


def settle_images(
    folder: OutputFolder,
    settled: Settled,
    jobs: int,
    *,
    asked: Sequence[str] = (),
    only: Container[str] | None = None,
    images: Path | None = None,
) -> Generator[list[Path] | Failed, None, None]:
    """Write the derived files of a folder that are missing or out of date: files of images, then files for the whole run.

    Args:
        folder: The folder.
        settled: Records the result.
        jobs: The number of threads.
        asked: The formats that the user named: an image whose picture is missing fails if one of them needs it.
        only: The images that have these formats, if not all.
        images: The folder of the images, if they have moved.

    Yields:
        For each image that was out of date, its files that are new in the folder, or its error.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder.clear_orphans()
    for place, error in folder.faults.items():
        settled.failed.append(error)
        yield Failed(ImageRef(folder.files.path(place), PurePosixPath(place)), error)
    for item in map_in_order(jobs, partial(_derive, folder), _items(folder, asked, only, images, settled)):
        try:
            if isinstance(item, Failed):
                raise item.error
            paths = folder.put(item.ref, item.entry, None, item.derived, item.rows)
            folder.cache.note_files(item.entry.image, (), _remove_lacking(folder, item))
        except ImageError as error:
            settled.failed.append(error)
            yield Failed(item.ref, error)
            continue
        settled.formats.update(item.derived.formats)
        settled.adopted += item.adopted
        settled.without_picture.update(item.lacking)
        settled.quality += item.derived.quality
        if item.remark:
            settled.remarks.setdefault(item.remark, []).append(item.ref.name)
        yield [path for path in paths if folder.files.place(path) not in item.rows]
    _settle_run_files(folder, asked, settled)


def _items(
    folder: OutputFolder, asked: Sequence[str], only: Container[str] | None, images: Path | None, settled: Settled
) -> Iterator[_Item | Failed]:
    folder.totals = TotalsSum(folder.classes)
    for entry, rows in folder.cache.images():
        folder.totals.add(entry.mask)
        ref = RunImage(entry, rows, folder).ref(images)
        if entry.place in folder.faults:
            continue
        if not entry.corrected and entry.mask.question != folder.context.question:
            yield Failed(ref, ImageError(folder.files.path(entry.place), "labelled with other settings", folder.hint))
            continue
        rows = rows | _note_scores(folder, entry, rows)  # noqa: PLW2901
        if input_path(ref) != entry.path and matches(entry.input, ref.path):
            entry = replace(entry, path=input_path(ref))  # noqa: PLW2901
        own = asked if only is None or entry.image in only else ()
        due = folder.deriver.due(ref, entry, rows, own)
        settled.edited += due.edited
        if due.write or entry.state != SEALED:
            yield _Item(ref, entry, rows, due, own)


def _note_scores(folder: OutputFolder, entry: Entry, rows: Mapping[str, FileRow]) -> dict[str, FileRow]:
    """Note what only the model can write of an image, where the cache was lost. Return the records."""
    found = dict[str, FileRow]()
    for name, path in model_files(folder.context, entry.image).items():
        place = folder.files.place(path)
        if name in folder.context.formats and place not in rows and path.is_file():
            found[place] = FileRow(place=place, name=name, digest="", shows=folder.deriver.shows(name, entry)).stamped(
                stamp(path)
            )
    if found:
        folder.cache.note_files(entry.image, found.values())
    return found


def _derive(folder: OutputFolder, item: _Item | Failed) -> _Item | Failed:
    """Read the labels of an image, and write its files under temporary names. Thread-safe."""
    if isinstance(item, Failed):
        return item
    ref, deriver, context, spec = item.ref, folder.deriver, folder.context, folder.info.spec
    entry, adopted = item.entry, item.entry.edited
    try:
        if entry.state != SEALED:
            entry = folder.adopt(entry)
        formats = folder.deriver.due(ref, entry, item.rows, item.asked).write
        if (mask := context.block_mask) is not None:
            derived = deriver.make_from_blocks(mask, ref, entry, formats)
            return replace(item, entry=entry, adopted=adopted, derived=derived)
        labels = read_labels(context, entry)
        needing = [name for name in formats if FORMATS[name].shows_picture]
        lacking = (
            ()
            if not needing or (exists(ref.path) and is_same_picture(entry, ref.path, spec.reader))
            else tuple(needing)
        )
        if failing := [name for name in lacking if name in item.asked]:
            raise _changed_image(folder, entry, ref, failing)
        formats = tuple(name for name in formats if name not in lacking)
        needs = {need for name in formats for need in FORMATS[name].needs}
        thumbnail = pixels = None
        if "thumbnail" in needs:
            thumbnail = spec.reader.thumbnail(ref.path)
        if "pixels" in needs:
            pixels = spec.reader.pixels(ref.path, entry.mask.size)
        grid = find_grid(formats, ref.path, entry.mask.size, len(context.classes), spec.reader)
        known = known_objects(entry, labels, context.classes)
        entry = replace(entry, packed=entry.packed or pack_objects(known))  # a cache that was lost
        every = scored_objects(labels, context.classes, known, None, context.files.simplify)
        image = ImageLabels(
            ref=ref,
            labels=labels.labels,
            objects=deriver.objects(entry, labels, every),
            instances=labels.instances,
            base=entry.base,
            thumbnail=thumbnail,
            pixels=pixels,
            grid=grid,
        )
        derived = deriver.make(image, entry, formats)
    except ImageError as error:
        return Failed(ref, error)
    remark = "" if grid is None else grid.remark
    return replace(item, entry=entry, adopted=adopted, derived=derived, lacking=lacking, remark=remark)


def _remove_lacking(folder: OutputFolder, item: _Item) -> list[str]:
    """Remove the files of older labels that cannot be written without the picture; rows of files for the whole run stay."""
    gone = []
    for row in item.rows.values():
        name = format_name(row.name)
        if name in item.lacking and row.is_file and row.shows != folder.deriver.shows(name, item.entry):
            folder.files.remove_row(row)
            gone.append(row.place)
    return gone


def _changed_image(folder: OutputFolder, entry: Entry, ref: ImageRef, formats: Sequence[str]) -> ImageError:
    without = f"or leave out {' and '.join(formats)}."
    if not exists(ref.path):
        return ImageError(ref.path, absence(ref.path), Words("Set the folder of the images with {images}, ") + without)
    hint = f"{'Restore the image' if entry.corrected else 'Label it again'}, {without}"
    if entry.corrected and (command := accept_command(folder.context, ref.path, entry, folder.reader)):
        hint += f" If its labels still fit: {command}"
    return ImageError(ref.path, "changed since it was labelled", hint)


# ---- files for the whole run ----


def run_file_shows(folder: OutputFolder, name: str) -> tuple[str, list[str]]:
    """Return a digest of what a format's file for the whole run would contain now, and the names of its images."""
    digest, images, form = sha256(folder.deriver.run_settings(name)), list[str](), FORMATS[name]
    shown = folder.cache.shown(name) if form.has_rows else ((image, "") for image in folder.cache.names())
    for image, shows in shown:
        digest.update(f"{image}\0{shows}\n".encode())
        images.append(image)
    return digest.hexdigest()[:32], images


def _settle_run_files(folder: OutputFolder, asked: Sequence[str], settled: Settled) -> None:
    """Write the files for the whole run that are missing or out of date."""
    known = folder.cache.files()
    held = {*folder.context.formats, *asked, *(row.name for row in known.values())}
    for name, form in FORMATS.items():
        if not form.files or name not in held:
            continue
        shows, images = run_file_shows(folder, name)
        for file in form.files:
            row = known.get(file)
            look = folder.files.look(row, file)
            if row is not None and row.shows == shows and look != "gone":
                settled.edited += [folder.path / file] if look == "other" else []
                continue
            data = form.run_file(file, folder.context, images, partial(folder.cache.rows, name))
            folder.write_file(folder.path / file, data, name, shows)
            folder.changed = True
            settled.run_files.append(folder.path / file)
