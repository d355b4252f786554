"""Label formats, one module each. `FORMATS` maps names to formats; `base.Format` is their base class."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

from tipsseg.errors import ImageError, InputError, UsageError, Words
from tipsseg.formats.base import Format, PartsFormat
from tipsseg.plugins import load_plugin, names
from tipsseg.util.files import is_folder
from tipsseg.util.text import did_you_mean, quote

if TYPE_CHECKING:
    from tipsseg.formats.source import Source
    from tipsseg.options.records import FileOptions
    from tipsseg.types import LabelClass

#: The module and the class of each format that is written image by image.
_IMAGE_FORMATS = {
    "png": "png.Png",
    "png-palette": "png.PngPalette",
    "coco": "coco.Coco",
    "coco-polygon": "coco.CocoPolygon",
    "coco-results": "coco.CocoResults",
    "panoptic": "panoptic.Panoptic",
    "instances": "instances.InstanceMasks",
    "yolo": "yolo.Yolo",
    "yolo-boxes": "yolo.YoloBoxes",
    "yolo-obb": "yolo.YoloObb",
    "labelme": "labelme.LabelMe",
    "cvat": "cvat.Cvat",
    "label-studio": "label_studio.LabelStudio",
    "hf": "hf.HuggingFace",
    "npz": "npz.Npz",
    "overlay": "pictures.Overlay",
    "confidence": "npz.Confidence",
    "binary": "pictures.Binary",
    "cutouts": "pictures.Cutouts",
    "csv": "table.Csv",
}

#: Formats that are read only.
_READ_ONLY = {"cvat-xml": "cvat.CvatXml"}

IMAGE_FORMATS = tuple(_IMAGE_FORMATS)

#: Data sets, which are written into another place.
DATASET_FORMATS = names("target")


class _Formats(UserDict[str, Format]):
    """Formats by name. The module of a format is imported when it is first used: help texts need the names alone."""

    def __init__(self, places: Mapping[str, str | None], kind: Literal["format", "reader"] = "format") -> None:
        super().__init__()
        self._kind: Literal["format", "reader"] = kind
        self.data: dict[str, Any] = dict(places)

    def __getitem__(self, name: str) -> Format:
        form = self.data[name]
        if form is None:
            form = self.data[name] = load_plugin(self._kind, name)()
        if isinstance(form, str):
            module, _, kind = form.partition(".")
            form = self.data[name] = getattr(import_module(f"tipsseg.formats.{module}"), kind)()
        return cast(Format, form)


#: The formats that are written, and formats that are read only. A program may add its own.
FORMATS = _Formats(_IMAGE_FORMATS | {name: None for name in names("format") if name not in _IMAGE_FORMATS})
READ_ONLY = _Formats(_READ_ONLY)

#: The formats of plugins that only `tipsseg correct` reads.
READERS = _Formats(dict.fromkeys(names("reader")), "reader")

#: Names that users may guess, and the formats they mean.
_GUESSES = {**dict.fromkeys(("mask", "masks", "index"), "png"), "json": "coco", "voc": "cvat", "jpg": "overlay"}


def check_format(name: str) -> None:
    """Raise UsageError if `name` is not in FORMATS."""
    if not name:
        raise UsageError("empty format name", "Separate format names with single commas: png,coco.")
    if name in DATASET_FORMATS:
        raise UsageError(
            f"{name} is a data set of its own, not a format of an output folder",
            f"Pass its folder or URL: tipsseg convert OUT -f {name} --to DIR",
        )
    if name not in FORMATS:
        guess = _GUESSES.get(name.lower(), name)
        raise UsageError(
            f"unknown format {name!r}", f"{did_you_mean(guess, FORMATS)}The formats are: {', '.join(FORMATS)}."
        )


def check_data_set(name: str, known: Sequence[str] = DATASET_FORMATS) -> None:
    """Raise UsageError if `name` is not one of the data sets that are known."""
    if name not in known:
        raise UsageError(
            f"{quote(name)} is not a data set with images",
            Words(
                "Use one of {datasets}. Or remove {to}, to write other formats into the output folder.",
                datasets=", ".join(known),
            ),
        )


def check_formats(names: Sequence[str], classes: Sequence[LabelClass]) -> None:
    """Raise UsageError if a format is unknown, is listed twice, or cannot store a class name."""
    for name in names:
        check_format(name)
    if len(set(names)) < len(names):
        raise UsageError(f"duplicate format: {', '.join(names)}", "List every format once.")
    for name in names:
        FORMATS[name].check()
        FORMATS[name].refuse_classes(classes)


def check_extra(names: Sequence[str], options: FileOptions) -> None:
    """Raise UsageError for an option of a format that is not among these formats, or that lacks the option."""
    for text in options.extra:
        check_format(name := text.partition(".")[0])
        FORMATS[name].values_of(options)
        if name not in names:
            raise UsageError(
                Words("{extra}={text} requires the format {name}", text=text, name=name),
                Words("Add {name} to {formats}.", name=name),
            )


def mask_format(names: Sequence[str]) -> str:
    """Return the format of the masks in a folder with these formats."""
    masks = {FORMATS[name].mask for name in names if name in FORMATS}
    return masks.pop() if len(masks) == 1 else "png"


def block_formats() -> list[str]:
    """Return the names of the formats that are written block by block."""
    return [name for name, form in FORMATS.items() if form.mask != "png"]


def format_name(key: str) -> str:
    """Return the name of the format of a per-image file; see `Format` for its `key`."""
    return key.partition("/")[0]


def is_model_only(key: str) -> bool:
    """Return True if only the model can write a per-image file, not a corrected mask."""
    name = format_name(key)
    return name in FORMATS and FORMATS[name].model_only


def file_path(key: str, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
    """Return the path of an image's file, relative to the output folder; None if the format has no per-image files."""
    name, _, part = key.partition("/")
    return FORMATS[name].relative_path(image, options, part)


def image_folders() -> frozenset[str]:
    """Return the top-level output folders that contain per-image files. The search for input images skips them."""
    return frozenset(entry.folder.split("/")[0] for entry in FORMATS.values() if entry.folder is not None)


def refuse_parts(path: Path) -> None:
    """Raise InputError if a path is inside the folder of a format whose PNG files are not index masks."""
    parts = [name for name, form in FORMATS.items() if isinstance(form, PartsFormat)]
    folders = {FORMATS[name].folder: name for name in (*parts, "instances")}
    place = path.absolute()
    for folder in (place, *place.parents):
        if folder.name in folders and (folder.parent / "run.json").is_file():
            raise InputError(
                f"{path}: files of the format {folders[folder.name]}, which are not index masks",
                f"Use {folder.parent}, or masks whose values are class ids.",
            )


def reading_formats() -> list[Format]:
    """Return the formats that `tipsseg correct` imports; not those that inherit how they are read."""
    return [form for form in (*FORMATS.values(), *READ_ONLY.values()) if "read" in vars(type(form))]


def correction_formats() -> list[str]:
    """Return the names of the formats that `tipsseg correct` imports."""
    return [*(form.name for form in reading_formats()), *READERS]


def detect_reader(source: Source) -> Format | None:
    """Return the format of a plugin that only `tipsseg correct` reads, if a source has it."""
    return next((form for form in READERS.values() if form.detect(source)), None)


def find_reading_format(name: str) -> Format:
    """Return a format to read by its name. Raise UsageError if there is none, or it is not read."""
    form = next((formats[name] for formats in (FORMATS, READ_ONLY, READERS) if name in formats), None)
    if form is None or not form.reads:
        known = correction_formats()
        hint = f"{did_you_mean(name, known)}Corrections are read from: {', '.join(known)}."
        raise UsageError(f"unknown format {name!r}", hint)
    return form


def detect_format(source: Source) -> Format:
    """Return the format of a source, detected by its files. Raise InputError unless exactly one format matches."""
    from tipsseg.formats.source import TRIED

    forms = reading_formats()
    matching: dict[str, Format] = {}
    faults: list[ImageError] = []
    for form in forms:
        try:
            if form.detect(source):
                matching[form.name] = form
        except ImageError as error:
            faults.append(error)
    for name in source.find_suffix(".json")[:TRIED]:
        try:
            value = source.json(name)
        except ImageError as error:
            faults.append(error)
            continue
        matching |= {form.name: form for form in forms if form.detect_json(value)}
    if not matching and source.find_suffix(".png"):
        matching["png"] = FORMATS["png"]
    if len(matching) == 1:
        return next(iter(matching.values()))
    if matching:
        raise InputError(
            f"{source.path}: several formats match: {', '.join(matching)}", Words("Choose one with {source_format}.")
        )
    reasons = faults[0].message + ". " if faults else ""
    advice = (
        faults[0].hint
        if faults and faults[0].hint
        else Words("Set {source_format} to see why a format cannot be read.")
    )
    raise InputError(
        f"{source.path}: no labels found in this {'folder' if is_folder(source.path) else 'file'}",
        reasons + advice + f" The formats are: {', '.join(form.name for form in forms)}.",
    )
