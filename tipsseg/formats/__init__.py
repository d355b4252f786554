"""Label formats, one module each. `FORMATS` maps names to formats; `base.Format` is their base class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.errors import InputError, UsageError
from tipsseg.formats.base import Format
from tipsseg.formats.coco import Coco, CocoPolygon
from tipsseg.formats.coco_results import CocoResults
from tipsseg.formats.confidence import Confidence
from tipsseg.formats.cvat import Cvat
from tipsseg.formats.hf import HuggingFace
from tipsseg.formats.instances import Instances
from tipsseg.formats.label_studio import LabelStudio
from tipsseg.formats.labelme import LabelMe
from tipsseg.formats.npz import Npz
from tipsseg.formats.overlay import Overlay
from tipsseg.formats.panoptic import Panoptic
from tipsseg.formats.parts import Binary, Cutouts
from tipsseg.formats.png import Png
from tipsseg.formats.raster import GeoJson, GeoPackage, GeoTiff
from tipsseg.formats.table import Csv
from tipsseg.formats.yolo import Yolo
from tipsseg.formats.yolo_boxes import YoloBoxes, YoloObb
from tipsseg.util.printable import did_you_mean

if TYPE_CHECKING:
    from tipsseg.options import FileOptions
    from tipsseg.types import LabelClass

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Png(),
        Coco(),
        CocoPolygon(),
        CocoResults(),
        Panoptic(),
        Instances(),
        Yolo(),
        YoloBoxes(),
        YoloObb(),
        LabelMe(),
        Cvat(),
        LabelStudio(),
        HuggingFace(),
        Npz(),
        Overlay(),
        Confidence(),
        Binary(),
        Cutouts(),
        Csv(),
        GeoTiff(),
        GeoJson(),
        GeoPackage(),
    )
}

#: Formats that are written block by block, from rasters that may be larger than memory; and all others.
RASTER_FORMATS = tuple(name for name, form in FORMATS.items() if form.raster)
IMAGE_FORMATS = tuple(name for name, form in FORMATS.items() if not form.raster)

#: Names that users may guess, and the formats they mean.
_GUESSES = {**dict.fromkeys(("mask", "masks", "index"), "png"), "json": "coco", "voc": "cvat", "jpg": "overlay"}


def check_format(name: str) -> None:
    """Raise UsageError if `name` is not in FORMATS."""
    if not name:
        raise UsageError("empty format name", "Separate format names with single commas: png,coco.")
    if name not in FORMATS:
        guess = _GUESSES.get(name.lower(), name)
        raise UsageError(
            f"unknown format {name!r}", f"{did_you_mean(guess, FORMATS)}The formats are: {', '.join(FORMATS)}."
        )


def check_formats(names: Sequence[str], classes: Sequence[LabelClass]) -> None:
    """Raise UsageError if a format is unknown, is listed twice, or cannot store a class name."""
    for name in names:
        check_format(name)
    if len(set(names)) < len(names):
        raise UsageError(f"duplicate format: {', '.join(names)}", "List every format once.")
    if len({FORMATS[name].raster for name in names}) > 1:
        raise UsageError(
            f"formats of rasters cannot be combined with others: {', '.join(names)}",
            f"Use {', '.join(RASTER_FORMATS)} alone: a raster is labelled block by block, at its own resolution.",
        )
    for name in names:
        FORMATS[name].refuse_classes(classes)


def check_overlaps(names: Iterable[str]) -> None:
    """Raise UsageError if a format cannot store classes that overlap."""
    for name in names:
        if not FORMATS[name].overlaps:
            able = ", ".join(name for name, form in FORMATS.items() if form.overlaps)
            raise UsageError(
                f"the format {name} cannot store classes that overlap: each of its pixels has one class",
                f"Use one of {able}.",
            )


def format_name(key: str) -> str:
    """Return the name of the format of a per-image file; see `Format` for its `key`."""
    return key.partition("/")[0]


def file_path(key: str, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
    """Return the path of an image's file, relative to the output folder; None if the format has no per-image files."""
    name, _, part = key.partition("/")
    return FORMATS[name].relative_path(image, options, part)


def image_folders() -> frozenset[str]:
    """Return the top-level output folders that contain per-image files. The search for input images skips them."""
    return frozenset(entry.folder.split("/")[0] for entry in FORMATS.values() if entry.folder is not None)


def refuse_parts(path: Path) -> None:
    """Raise InputError if a path is inside the folder of a format with several files per image: those are not index masks."""
    folders = {form.folder: name for name, form in FORMATS.items() if form.has_parts}
    place = path.absolute()
    for folder in (place, *place.parents):
        if folder.name in folders and (folder.parent / "run.json").is_file():
            raise InputError(
                f"{path}: files of the format {folders[folder.name]}, which are not index masks",
                f"Use {folder.parent}, or masks whose values are class ids.",
            )


#: Formats that only the model can write, not a corrected mask.
MODEL_ONLY = tuple(
    name
    for name, form in FORMATS.items()
    if form.needs_confidence or form.needs_top_classes or (form.raster and name != "geotiff")
)
