"""The result of one image of a run, and its files in the output folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows, RunContext
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.journal import Journal
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import ImageRef, Remark
from tipsseg.util.ownership import digest_of
from tipsseg.util.record_paths import actual_path


@dataclass(frozen=True, slots=True)
class Labelled:
    """Result of an image that this run labelled; its per-image files are in place.

    Attributes:
        ref: The image.
        entry: Its line in the manifest.
        rows: Its rows for the files of the whole run, by format.
        polygon_quality: How well the polygons fit its pixels.
        remarks: How the model saw less than is in the file.
        damaged: What was wrong with the file of its features, which was written again; "" where nothing was.
    """

    ref: ImageRef
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    remarks: tuple[Remark, ...] = ()
    damaged: str = ""


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

#: An image for the model, or the result of an image that does not need it.
Item = Left | Labelled


def image_paths(context: RunContext, ref: ImageRef, formats: Iterable[str]) -> dict[str, Path]:
    """Where the per-image files of an image are, by format."""
    paths = {name: FORMATS[name].image_path(context.output, ref.relative, context.files.names) for name in formats}
    return {name: path for name, path in paths.items() if path is not None}


def restore_links(context: RunContext, ref: ImageRef, formats: Iterable[str]) -> None:
    """Let the links to an image lead to it where they do not, as after it was moved. Raises OutputError."""
    for name in formats:
        place = FORMATS[name].link_path(ref.relative, context.files.names)
        if place is not None:
            context.ownership.restore_link(ref, context.output / place)


def remove_files(
    entry: ManifestEntry, formats: Iterable[str], context: RunContext, names: str, *, edited: bool = False
) -> list[Path]:
    """Remove the files and links of an image in some formats.

    Args:
        entry: The image.
        formats: The formats that it is in no more.
        context: Of the output folder.
        names: How its files are named, see FileOptions.
        edited: Whether files that were changed since may go too.

    Returns:
        The files that were changed since, and stay.

    Raises:
        OutputError: Where a file cannot be removed.
    """
    ownership, kept = context.ownership, []
    for name in formats:
        place = FORMATS[name].link_path(PurePosixPath(entry.image), names)
        if place is not None:
            ownership.remove_link(actual_path(context.output, str(place)))
        if name in entry.files:
            path = actual_path(context.output, entry.files[name])
            if not ownership.remove(path, {digest_of(path) if edited else entry.written[name].sha256 or ""}):
                kept.append(path)
    return kept


def in_place(name: str, entry: ManifestEntry, ref: ImageRef, context: RunContext, journal: Journal | None) -> bool:
    """Whether an image is in a format, as the manifest says: its per-image file is as written, its rows are in the journal."""
    path = FORMATS[name].image_path(context.output, ref.relative, context.files.names)
    return (
        name in entry.formats
        and (path is None or (name in entry.written and entry.written[name].holds(path)))
        and (journal is None or journal.has(ref.name))
    )


def edited_formats(entry: ManifestEntry, ref: ImageRef, context: RunContext) -> tuple[str, ...]:
    """The formats in which an image has a file that is there, and not as this program wrote it.

    A file of the size and time that it was written with is not read; `find_correction` and `check_image` read it.
    """
    found = []
    for name, path in image_paths(context, ref, entry.files).items():
        if os.path.lexists(path) and not entry.written[name].holds(path) and not context.ownership.is_pending(path):
            found.append(name)
    return tuple(found)
