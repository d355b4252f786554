"""Results of images, and their files in the output folder: check, move and remove them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, format_name, possible_paths
from tipsseg.formats.base import Rows
from tipsseg.options import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.ownership import StagedFile, digest_of
from tipsseg.store.state import State
from tipsseg.store.writing import RunContext, run_files
from tipsseg.types import ImageRef, Remark
from tipsseg.util.record_paths import actual_name, actual_path


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image that this run labelled.

    Attributes:
        ref: The image.
        entry: Its manifest entry.
        rows: Its rows for the files for the whole run, by format.
        polygon_quality: IoU of its polygons with its pixels.
        remarks: Differences between the file and what the model saw.
        damaged: The fault of its feature file, which was written again; "" if the file was intact.
        staged: Its per-image files under temporary names.
    """

    ref: ImageRef
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    remarks: tuple[Remark, ...] = ()
    damaged: str = ""
    staged: tuple[StagedFile, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image that an earlier run labelled, and that is up to date or was edited.

    Attributes:
        ref: The image.
        entry: Its manifest entry.
        edited: Formats whose files were edited.
        lacking: Formats of this run that lack the edited image.
        other_input: True if the image changed after its labels were edited.
    """

    ref: ImageRef
    entry: ManifestEntry
    edited: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    other_input: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that cannot be labelled, or a folder that cannot be listed.

    Attributes:
        ref: The image.
        error: The reason.
    """

    ref: ImageRef
    error: ImageError

    @property
    def name(self) -> str:
        return self.ref.name


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image whose features are in the feature store.

    Attributes:
        ref: The image.
        file: Its feature file; with several scales, that of the coarsest.
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
Left = ImageRef | Unchanged | Failed


def image_paths(
    context: RunContext, ref: ImageRef, formats: Iterable[str], entry: ManifestEntry | None = None
) -> dict[str, Path]:
    """Return the paths of an image's files in these formats, by key; of formats with several files, those in `entry`."""
    keys = (key for name in formats for key in _keys(name, entry))
    return {key: path for key in keys if (path := context.image_path(key, ref)) is not None}


def _keys(name: str, entry: ManifestEntry | None) -> Sequence[str]:
    if not FORMATS[name].has_parts:
        return (name,)
    return () if entry is None else entry.keys(name)


def restore_links(context: RunContext, ref: ImageRef, formats: Iterable[str]) -> None:
    """Point the links to an image to its new path, if it was moved."""
    for name in formats:
        place = FORMATS[name].link_path(ref.relative, context.files)
        if place is not None:
            context.ownership.restore_link(ref, context.output / place)


def remove_files(
    entry: ManifestEntry, formats: Iterable[str], context: RunContext, options: FileOptions, *, edited: bool = False
) -> list[Path]:
    """Remove an image's files and links in these formats.

    Args:
        entry: The image.
        formats: The formats.
        context: Context of the output folder.
        options: The file options that its files were written with.
        edited: Remove edited files too.

    Returns:
        The edited files, which were not removed.

    Raises:
        OutputError: A file cannot be removed.
    """
    kept: list[Path] = []
    for name in formats:
        if (link := link_of(entry, name, options)) is not None:
            context.ownership.remove_link(actual_path(context.output, str(link)))
        kept += _remove_keys(entry, entry.keys(name), context, edited=edited)
    return kept


def _remove_keys(entry: ManifestEntry, keys: Iterable[str], context: RunContext, *, edited: bool) -> list[Path]:
    """Remove files of an image, with `edited` also edited ones. Return those that were not removed."""
    paths = {key: actual_path(context.output, entry.files[key]) for key in keys}
    return [
        path
        for key, path in paths.items()
        if not context.ownership.remove(path, {digest_of(path) if edited else entry.written[key].sha256 or ""})
    ]


def remove_former_parts(
    before: ManifestEntry, entry: ManifestEntry, context: RunContext, *, edited: bool = False
) -> None:
    """Remove the files of an image that its new entry lacks, though it has their format; with `edited`, also edited ones.

    Raises OutputError if a file cannot be removed.
    """
    former = [key for key in before.files if key not in entry.files and format_name(key) in entry.formats]
    _remove_keys(before, former, context, edited=edited)


def link_of(entry: ManifestEntry, name: str, options: FileOptions) -> PurePosixPath | None:
    """Return the path of a format's link to an image, relative to the output folder; None if the format has no links."""
    return possible_paths(name, PurePosixPath(entry.image), options).get(entry.files.get(name, ""))


def move_files(state: State, context: RunContext) -> int:
    """Move per-image files that another `val_fraction` put elsewhere. If killed, call it again.

    Returns:
        Number of images whose files were moved.

    Raises:
        OutputError: Other files are in the way; nothing was moved.
    """
    moved: set[str] = set()
    for name, form in FORMATS.items():
        held = state.holding(name) if form.splits_train_val else ()
        images = [image for image in held if _move(state, image, name, context)]
        if not images:
            continue
        for file in run_files(name, context):  # before the moves, so that a call after a kill writes it again
            context.ownership.refuse_changed(file.path)
            file.write(held)
        for image in images:
            if (change := _move(state, image, name, context)) is not None:
                for path, place in change.paths:
                    context.ownership.move(path, place)
                state.add(change.entry)
        moved.update(images)
    return len(moved)


@dataclass(frozen=True, slots=True)
class _Move:
    """A planned move of an image's files: the resulting entry, and pairs of old and new paths."""

    entry: ManifestEntry
    paths: tuple[tuple[Path, Path], ...]


def _move(state: State, image: str, name: str, context: RunContext) -> _Move | None:
    """Plan the move of an image's files in a format; None if they are in place. Raises OutputError if a file is in the way."""
    entry = state.get(image)
    if entry is None or name not in entry.files:
        return None
    (file, link), *_ = possible_paths(name, PurePosixPath(image), context.files).items()
    if entry.files[name] == file:
        return None
    pairs = [(entry.files[name], file), (str(link_of(entry, name, context.files)), str(link))]
    paths = []
    for there, new in pairs:
        path = actual_path(context.output, there)
        paths.append((path, context.output / (new if path == context.output / there else actual_name(new))))
    for path, place in paths:
        context.ownership.refuse_taken(path, place)
    return _Move(replace(entry, files={**entry.files, name: file}), tuple(paths))


def in_place(name: str, entry: ManifestEntry, ref: ImageRef, context: RunContext, state: State) -> bool:
    """Return True if a format has an image: it is recorded, its per-image file is unchanged, and its rows exist."""
    keys, form = entry.keys(name), FORMATS[name]
    return (
        name in entry.formats
        and bool(keys or form.has_parts or form.folder is None)
        and all(entry.written[key].is_unchanged(actual_path(context.output, entry.files[key])) for key in keys)
        and (not form.has_rows or state.has_rows(name, ref.name))
    )


def edited_formats(entry: ManifestEntry, ref: ImageRef, context: RunContext) -> tuple[str, ...]:
    """Return the formats in which an image's file exists and was edited.

    Files with the recorded size and time count as unchanged; `RunImage.correction` and `check_image` compare their content.
    """
    found: dict[str, None] = {}
    for key, file in entry.files.items():
        path = actual_path(context.output, file)
        if (
            os.path.lexists(path)
            and not entry.written[key].is_unchanged(path)
            and not context.ownership.is_pending(path)
        ):
            found[format_name(key)] = None
    return tuple(found)
