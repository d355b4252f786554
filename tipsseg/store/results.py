"""The result of one image of a run, and its files in the output folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.options import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.state import State
from tipsseg.store.writing import RunContext, run_files
from tipsseg.types import ImageRef, Remark
from tipsseg.util.ownership import StagedFile, digest_of
from tipsseg.util.record_paths import actual_name, actual_path


@dataclass(frozen=True, slots=True)
class Labelled:
    """Result of an image that this run labelled.

    Attributes:
        ref: The image.
        entry: Its line in the manifest.
        rows: Its rows for the files of the whole run, by format.
        polygon_quality: How well the polygons fit its pixels.
        remarks: How the model saw less than is in the file.
        damaged: What was wrong with the file of its features, which was written again; "" where nothing was.
        staged: Its per-image files, until they are put in place.
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
    """Result of an image that an earlier run labelled: nothing that matters has changed, or edited labels are kept.

    Attributes:
        ref: The image.
        entry: Its line in the manifest.
        edited: The formats whose files were edited.
        lacking: The formats of this run that an edited image is not in.
        other_input: Whether the image was changed after its labels were edited.
    """

    ref: ImageRef
    entry: ManifestEntry
    edited: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    other_input: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Result of an image that cannot be labelled. A folder that cannot be listed may stand here for its images.

    Attributes:
        ref: The image.
        error: What is wrong with it.
    """

    ref: ImageRef
    error: ImageError

    @property
    def name(self) -> str:
        """The name of the image."""
        return self.ref.name


@dataclass(frozen=True, slots=True)
class Encoded:
    """Result of an image whose features are in the feature store.

    Attributes:
        ref: The image.
        file: The file of its features; of several scales that of the coarsest.
        size: (height, width) of the image in pixels, upright.
        windows: How many windows the model saw; 1 for an image that it saw in one piece.
        bytes: Bytes of the features.
        made: Whether this run has made them, or those of a scale.
        damaged: See Labelled.
        finer: The files of the features at larger scales, in ascending order.
        remarks: See Labelled; of an image that this run has encoded.
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
        """The file at each scale."""
        return (self.file, *self.finer)


ImageResult = Labelled | Unchanged | Failed

#: What an earlier run left of an image: it is to be labelled, or its result is known.
Left = ImageRef | Unchanged | Failed


def image_paths(context: RunContext, ref: ImageRef, formats: Iterable[str]) -> dict[str, Path]:
    """Where the per-image files of an image are, by format."""
    paths = {name: context.image_path(FORMATS[name], ref) for name in formats}
    return {name: path for name, path in paths.items() if path is not None}


def restore_links(context: RunContext, ref: ImageRef, formats: Iterable[str]) -> None:
    """Let the links to an image lead to it where they do not, as after it was moved. Raises OutputError."""
    for name in formats:
        place = FORMATS[name].link_path(ref.relative, context.files)
        if place is not None:
            context.ownership.restore_link(ref, context.output / place)


def remove_files(
    entry: ManifestEntry, formats: Iterable[str], context: RunContext, options: FileOptions, *, edited: bool = False
) -> list[Path]:
    """Remove the files and links of an image in some formats.

    Args:
        entry: The image.
        formats: The formats that it is in no more.
        context: Of the output folder.
        options: How its labels became files.
        edited: Whether files that were changed since may go too.

    Returns:
        The files that were changed since, and stay.

    Raises:
        OutputError: Where a file cannot be removed.
    """
    ownership, kept = context.ownership, []
    for name in formats:
        if (link := link_of(entry, name, options)) is not None:
            ownership.remove_link(actual_path(context.output, str(link)))
        if name in entry.files:
            path = actual_path(context.output, entry.files[name])
            if not ownership.remove(path, {digest_of(path) if edited else entry.written[name].sha256 or ""}):
                kept.append(path)
    return kept


def link_of(entry: ManifestEntry, name: str, options: FileOptions) -> PurePosixPath | None:
    """Where the link to an image is in a format, relative to the output folder; None where there is none."""
    places = FORMATS[name].possible_paths(PurePosixPath(entry.image), options)
    return places.get(entry.files.get(name, ""))


def move_files(state: State, context: RunContext) -> int:
    """Move files of images that an earlier version, or another `val_fraction`, put elsewhere than the context has them.

    The same again goes on where it was broken off.

    Returns:
        How many images have files that were moved.

    Raises:
        OutputError: Where other files are in the way; nothing was moved then.
    """
    moved = 0
    for name, form in FORMATS.items():
        held = state.holding(name) if form.splits_train_val else ()
        images = [image for image in held if _move(state, image, name, context)]
        for former in form.former_files:
            context.ownership.remove_run_file(context.state / former)
        if not images:
            continue
        for file in run_files(name, context):  # first: as long as a file is not moved, this is done again
            context.ownership.refuse_changed(file.path)
            file.write(held)
        for image in images:
            if (change := _move(state, image, name, context)) is not None:
                for path, place in change.paths:
                    context.ownership.move(path, place)
                state.add(change.entry)
        moved += len(images)
    return moved


@dataclass(frozen=True, slots=True)
class _Move:
    """Files of an image that are to be moved: its entry afterwards, and from where each goes to where."""

    entry: ManifestEntry
    paths: tuple[tuple[Path, Path], ...]


def _move(state: State, image: str, name: str, context: RunContext) -> _Move | None:
    """What is to be moved of an image in a format; None for nothing. Raises OutputError where something is in the way."""
    entry = state.get(image)
    if entry is None or name not in entry.files:
        return None
    (file, link), *_ = FORMATS[name].possible_paths(PurePosixPath(image), context.files).items()
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
    """Whether an image is in a format, as the records say: its per-image file is as written, and its rows are there."""
    file = entry.files.get(name)
    return (
        name in entry.formats
        and (
            entry.written[name].is_unchanged(actual_path(context.output, file))
            if file is not None
            else FORMATS[name].folder is None
        )
        and (not FORMATS[name].has_rows or state.has_rows(name, ref.name))
    )


def edited_formats(entry: ManifestEntry, ref: ImageRef, context: RunContext) -> tuple[str, ...]:
    """The formats in which an image has a file that is there, and not as this program wrote it.

    A file of the size and time that it was written with is not read; `find_correction` and `check_image` read it.
    """
    found = []
    for name, file in entry.files.items():
        path = actual_path(context.output, file)
        if (
            os.path.lexists(path)
            and not entry.written[name].is_unchanged(path)
            and not context.ownership.is_pending(path)
        ):
            found.append(name)
    return tuple(found)
