"""The results of images, and how a labelled one is written: its labels, its record and its derived files.

The derived files are a pure function of the labels, their record and, for some formats, the picture. Each file records which labels
it shows. It is out of date if that differs from what it would show now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.folder.entry import ROWS, Entry, FileRow, ObjectScore, input_path, object_scores, pack_objects
from tipsseg.folder.files import Content, Files, StagedFile, one_image
from tipsseg.folder.labels import PNG, Labels, RunContext, label_bulk
from tipsseg.folder.summary import CERTAIN, count_facts
from tipsseg.formats import FORMATS, file_path, format_name, is_model_only
from tipsseg.formats.base import Format, Grid, ImageLabels, PartsFormat, Rows
from tipsseg.formats.blocks import BlockFormat, BlockMask
from tipsseg.formats.coco import category_record
from tipsseg.formats.mask import MaskFacts, PictureFacts, attach, envelope, label_digest, seal
from tipsseg.formats.png import encode_mask
from tipsseg.images.decoding import ImageReader
from tipsseg.label_map import LabelMap, find_objects
from tipsseg.options import MinArea
from tipsseg.regions.objects import LabelledObject, object_regions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.types import Failed, ImageRef, Remark
from tipsseg.util.files import Fingerprint
from tipsseg.util.json import json_bytes
from tipsseg.util.text import shell_word
from tipsseg.vocabulary.palette import colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The formats of an image that must be written, and its files that a person changed.

    Attributes:
        write: The formats.
        edited: Files that were changed by hand, which stay while the labels of the image do not change.
    """

    write: tuple[str, ...] = ()
    edited: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The files of an image in some formats, under temporary names.

    Attributes:
        formats: The formats.
        files: The files.
        rows: The rows for files for the whole run.
        pictures: The places of copies of the image, by format.
        notes: Records of parts that are no files (see `entry.ROWS`).
        quality: The agreement of the polygons with the labels.
    """

    formats: tuple[str, ...] = ()
    files: tuple[StagedFile, ...] = ()
    rows: Mapping[str, Rows] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[FileRow, ...] = ()
    quality: PolygonQuality = field(default_factory=lambda: PolygonQuality.from_ious(()))


class Deriver:
    """Derive the files of a run's images. Thread-safe."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.files = Files(context.output)
        self._settings = {name: _settings(form, context) for name, form in FORMATS.items()}

    def derives(self, name: str) -> bool:
        """Return True for a format that is made from labels: neither the labels themselves, nor made by the model alone."""
        return not is_model_only(name) and name not in (PNG, self.context.mask_format)

    def shows(self, name: str, entry: Entry) -> str:
        """Return what a file in a format shows: a digest of the labels, and of the options and the picture that it depends on."""
        form = FORMATS[name]
        shown = entry.version + self._settings[name]
        if form.shows_picture and not form.picture_folder:
            shown += f" {self.picture_of(entry)[:16]}"
        if "address" in form.needs:
            shown += f" {sha256(entry.path.encode()).hexdigest()[:8]}"
        return shown

    def due(self, ref: ImageRef, entry: Entry, rows: Mapping[str, FileRow], more: Sequence[str] = ()) -> Due:
        """Return the formats of an image whose files are missing or out of date.

        `rows` are its files by place, and `more` are formats that it is to have beside the formats of the folder and of its files.
        """
        write, edited = list[str](), list[Path]()
        for name in dict.fromkeys((*self.formats_of(rows), *filter(self.derives, more))):
            shown = {name: self.shows(name, entry), picture_key(name): self.picture_of(entry)}
            own = [row for row in rows.values() if format_name(row.name) == name]
            looks = {row.place: self.files.look(row) for row in own if row.digest != ROWS}
            current = {row.place for row in own if row.shows == shown.get(row.name, shown[name])}
            # What a person edited stays while the labels do, whatever the options.
            of_labels = current | {row.place for row in own if row.shows_labels(entry.version)}
            stay = {place for place in of_labels if looks.get(place) == "other"}
            if not self._places(name, ref) | {row.place for row in own} <= current | stay or "gone" in looks.values():
                write.append(name)
            edited += map(self.files.path, sorted(stay))
        return Due(write=tuple(write), edited=tuple(edited))

    def formats_of(self, rows: Mapping[str, FileRow]) -> list[str]:
        """Return the formats of an image that are made from labels: the formats of the folder and of its files."""
        names = dict.fromkeys((*self.context.formats, *(format_name(row.name) for row in rows.values())))
        return [name for name in names if self.derives(name)]

    def _places(self, name: str, ref: ImageRef) -> set[str]:
        """Return the places that an image in a format has records of."""
        form = FORMATS[name]
        places = {form.files[0]} if form.has_rows else set()
        if (picture := form.picture_path(ref.relative, self.context.files)) is not None:
            places.add(self.files.place(self.context.output / picture))
        if isinstance(form, PartsFormat):
            return places | {str(form.folder)}
        path = file_path(name, ref.relative, self.context.files)
        return places if path is None else places | {self.files.place(self.context.output / path)}

    def picture_of(self, entry: Entry) -> str:
        """Return what a copy of the image shows: the content of the image, wherever it is."""
        picture = entry.mask.picture
        return (picture.sha256 or str(picture.bytes))[:32]

    def objects(self, entry: Entry, labels: Labels, every: Sequence[LabelledObject]) -> list[LabelledObject]:
        """Return the objects that files list, of `every` object."""
        options = self.context.files
        least = options.min_area.pixels(entry.mask.size)
        if options.instances == "component":
            return [each for each in every if each.region.area >= least]
        regions = object_regions(labels.labels, self.context.classes, options)
        by_hand = entry.corrected
        means = {each: CERTAIN if by_hand else entry.mask.confidence.get(each, 0.0) for each in entry.mask.names}
        return [LabelledObject(region, means[region.class_id], options.simplify) for region in regions]

    def make(self, image: ImageLabels, entry: Entry, formats: Iterable[str]) -> Derived:
        """Write the files of an image in these formats under temporary names: all of them, or none.

        `image` has what the formats need, with the objects that files list.

        Raises:
            ImageError: A file cannot be written at its path.
            OutputError: The folder cannot be written.
        """
        context, ref = self.context, image.ref
        forms = [FORMATS[name] for name in formats]
        made, pictures, notes = dict[str, tuple[Path, Content]](), dict[str, Path](), list[FileRow]()
        shows = {form.name: self.shows(form.name, entry) for form in forms}
        for form in forms:
            for key, encoded in form.encode_files(image, context).items():
                data = attach(encoded, entry.mask) if form.model_only else encoded
                path = file_path(key, ref.relative, context.files)
                assert path is not None
                made[key] = context.output / path, data
            if (picture := form.picture_path(ref.relative, context.files)) is not None:
                pictures[form.name] = context.output / picture
            places = [form.files[0]] if form.has_rows else []
            places += [str(form.folder)] if isinstance(form, PartsFormat) else []
            notes += [FileRow(place=each, name=form.name, digest=ROWS, shows=shows[form.name]) for each in places]
        rows = {form.name: form.image_rows(image, context) for form in forms if form.has_rows}
        quality = PolygonQuality.from_ious([each.iou for each in image.objects])
        files = stage_files(self.files, ref, made, shows)
        return Derived(
            formats=tuple(shows), files=files, rows=rows, pictures=pictures, notes=tuple(notes), quality=quality
        )

    def make_from_blocks(self, mask: BlockMask, ref: ImageRef, entry: Entry, formats: Iterable[str]) -> Derived:
        """Write the files of an image in these formats from its mask, block by block. Raise as `make` does."""
        context, path = self.context, self.context.mask_path(ref)
        grid, blocks = mask.read_mask_grid(path, len(context.classes)), partial(mask.read_blocks, path, context)
        made, shows = dict[str, tuple[Path, Content]](), dict[str, str]()
        for name in formats:
            form, place = FORMATS[name], file_path(name, ref.relative, context.files)
            assert isinstance(form, BlockFormat)
            assert place is not None
            made[name] = context.output / place, partial(form.write, grid=grid, blocks=blocks, run=context)
            shows[name] = self.shows(name, entry)
        return Derived(formats=tuple(shows), files=stage_files(self.files, ref, made, shows))

    def run_settings(self, name: str) -> bytes:
        """Return what a file for the whole run depends on beside its images."""
        run = self.context
        categories = [
            (category_record(entry), entry.colour, *([] if entry.thing is None else [entry.thing]))
            for entry in run.classes
        ]
        own = FORMATS[name].options_set(run.files)
        return json_bytes([name, categories, run.files.instances, run.files.val_fraction, dict(run.info), *own.items()])


def stage_files(
    files: Files, ref: ImageRef, made: Mapping[str, tuple[Path, Content]], shows: Mapping[str, str]
) -> tuple[StagedFile, ...]:
    """Write the files of an image under temporary names, by key: all of them, or none. Raise as `Deriver.make` does.

    `shows` is what they show, by format.
    """
    staged = list[StagedFile]()
    with one_image(ref, staged):
        for key, (path, data) in made.items():
            staged.append(files.stage(key, path, data, shows[format_name(key)]))
    return tuple(staged)


def picture_key(name: str) -> str:
    """Return the key of a format's copy of the image. No folder of a class has a colon in its name."""
    return f"{name}/:picture"


def _settings(form: Format, context: RunContext) -> str:
    """Return a digest of the options that a format's files depend on, with a space before it; "" if there are none."""
    files, facts = context.files, list[object]()
    if "objects" in form.needs:
        facts += [files.instances, str(files.min_area), files.simplify]
    if form.colours:
        facts += [(entry.id, entry.colour) for entry in context.classes if entry.colour != colour(entry.id)]
    if isinstance(form, PartsFormat):
        facts += [entry.name for entry in context.classes]
    facts += form.options_set(files).items()
    return f" {sha256(json_bytes(facts)).hexdigest()[:8]}" if facts else ""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image that this run labelled.

    Attributes:
        ref: The image.
        entry: Its record.
        mask: Its mask, under a temporary name; None if another process has put it in place.
        derived: Its other files.
        remarks: Differences between the file and what the model saw.
        damaged: The fault of its feature file, which was written again; "" if the file was intact.
        reason: Why it was labelled; set once it is recorded.
        files: Its files by format; set once it is recorded.
    """

    ref: ImageRef
    entry: Entry
    mask: StagedFile | None
    derived: Derived
    remarks: tuple[Remark, ...] = ()
    damaged: str = ""
    reason: str = field(default="", kw_only=True)
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)


#: Why the labels of an image stay whose picture changed.
OTHER_PICTURE = "the picture changed since it was corrected"


def accept_command(context: RunContext, path: Path, entry: Entry, reader: ImageReader) -> str:
    """Return the command that says of labels that they fit the picture of now; "" of blocks, and of another size."""
    with suppress(ImageError):
        if context.mask_format == PNG and reader.size(path) == entry.mask.size:
            mask = shell_word(str(context.output / entry.place))
            return f"tipsseg correct {shell_word(str(context.output))} --from {mask} --accept"
    return ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose labels stay, with the reason, and its files by format once it is recorded."""

    ref: ImageRef
    entry: Entry
    reason: str = "done"
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)

    @property
    def edited(self) -> bool:
        return self.reason != "done"

    @property
    def other_picture(self) -> bool:
        """True if the picture changed since it was corrected."""
        return self.reason == OTHER_PICTURE


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image whose features are in the feature store.

    Attributes:
        ref: The image.
        file: Its feature file; with several scales, the file of the coarsest.
        size: (height, width) of the upright image in pixels.
        windows: Number of windows; 1 for a whole image.
        bytes: Size of the features in bytes.
        made: True if this run computed features at one scale or more.
        damaged: See Labelled.
        finer: The feature files at larger scales, in ascending order.
        remarks: See Labelled; empty if this run did not encode the image.
    """

    ref: ImageRef
    file: Path
    size: tuple[int, int]
    windows: int
    bytes: int
    made: bool
    damaged: str = ""
    finer: tuple[Path, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the feature files, one per scale."""
        return (self.file, *self.finer)


ImageResult = Labelled | Unchanged | Failed

#: An image to be labelled, or its result.
Triaged = ImageRef | Unchanged | Failed


def write_image(
    deriver: Deriver,
    ref: ImageRef,
    fingerprint: Fingerprint,
    label_map: LabelMap,
    *,
    thumbnail: NDArray[np.uint8] | None,
    pixels: Callable[[], NDArray[np.uint8]],
    grid: Callable[[], Grid | None],
    pixel_digest: str = "",
    given: str = "",
) -> Labelled:
    """Write the files of an image under temporary names: all of them, or none. Safe in any thread or process.

    Args:
        deriver: Derives the files of the run.
        ref: The image.
        fingerprint: The fingerprint of its file.
        label_map: Its labels.
        thumbnail: [h, w, 3] uint8 RGB (see `ImageLabels`); None if no format needs it.
        pixels: Reads the image, if a format needs its pixels.
        grid: Reads its grid, if a format needs it.
        pixel_digest: See `PictureFacts.pixels`.
        given: See `MaskFacts`.

    Raises:
        ImageError: A file cannot be written at its path.
        OutputError: The folder cannot be written.
    """
    context = deriver.context
    every = find_objects(label_map, replace(context.files, instances="component", min_area=MinArea(1)))
    labels = Labels(labels=label_map.labels, instances=label_map.instances)
    image = ImageLabels(
        ref=ref,
        labels=label_map.labels,
        objects=every,
        confidence=label_map.confidence,
        top=label_map.top,
        thumbnail=thumbnail,
        instances=label_map.instances,
        pixels=pixels() if context.need("pixels") else None,
        grid=grid(),
    )
    objects = object_scores(every)
    facts = MaskFacts(
        image=ref.name,
        question=context.question,
        given=given,
        picture=PictureFacts(bytes=fingerprint.size, sha256=fingerprint.sha256 or "", pixels=pixel_digest),
        labels=label_digest(image.labels),
        size=label_map.shape,
        **count_facts(label_map),
    )
    data = seal(encode_mask(image.labels, context.classes), facts, label_bulk(labels, objects))
    staged = list[StagedFile]()
    with one_image(ref, staged):
        staged.append(mask := deriver.files.stage(PNG, context.mask_path(ref), data, synced=True))
        entry = new_entry(ref, mask, data, fingerprint, objects)
        image = replace(image, objects=deriver.objects(entry, labels, every), base=entry.base)
        derived = deriver.make(image, entry, [name for name in context.formats if name != context.mask_format])
    return Labelled(ref, entry, mask, derived)


def find_grid(
    formats: Iterable[str], path: Path, size: tuple[int, int], classes: int, reader: ImageReader
) -> Grid | None:
    """Return the grid of an image that was labelled whole, for these formats; None if no format needs it."""
    forms = (form for name in formats if isinstance(form := FORMATS[name], BlockFormat))
    return next((form.read_grid(path, size, classes, reader) for form in forms), None)


def new_entry(
    ref: ImageRef, mask: StagedFile, data: bytes, fingerprint: Fingerprint, objects: Iterable[ObjectScore]
) -> Entry:
    """Return the entry of a mask with this content, under a temporary name."""
    row = mask.row
    return Entry.of(
        envelope(data),
        place=row.place,
        stamp=Fingerprint(row.size, row.mtime_ns, row.digest),
        packed=pack_objects(objects),
        path=input_path(ref),
        input_mtime_ns=fingerprint.mtime_ns,
    )
