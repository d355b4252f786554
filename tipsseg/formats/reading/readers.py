"""Choose the reader for corrections by the name of a format, or detect the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats.reading import coco, label_studio, labelme, masks, yolo
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import SourceImage
from tipsseg.formats.reading.source import Source
from tipsseg.util.files import is_folder
from tipsseg.util.printable import did_you_mean

#: The maximum number of JSON files that are opened to detect a format.
_TRIED = 20


@dataclass(frozen=True, slots=True)
class Reader:
    """A format of corrections.

    Attributes:
        name: The format name in FORMATS.
        images: Yields the images in a source, given the classes of a run.
    """

    name: str
    images: Callable[[Source, ClassNames], Iterator[SourceImage]]


READERS = {
    reader.name: reader
    for reader in (
        Reader("png", masks.read_index_masks),
        Reader("cvat", masks.read_colour_masks),
        Reader("hf", masks.read_hugging_face),
        Reader("coco", coco.read_coco),
        Reader("labelme", labelme.read_labelme),
        Reader("label-studio", label_studio.read_label_studio),
        Reader("yolo", yolo.read_yolo),
    )
}

#: Formats that use the reader of another format.
_ALIASES = {"coco-polygon": "coco"}

#: Functions that detect a format from parsed JSON.
_JSON = {"coco": coco.is_coco, "labelme": labelme.is_labelme, "label-studio": label_studio.is_label_studio}


def find_reader(name: str) -> Reader:
    """Return the reader for a format. Raises UsageError if the format has none."""
    name = _ALIASES.get(name, name)
    if name not in READERS:
        known = f"Corrections are read from: {', '.join(READERS)}."
        raise UsageError(f"unknown format {name!r}", f"{did_you_mean(name, READERS)}{known}")
    return READERS[name]


def detect_reader(source: Source) -> Reader:
    """Detect the format of a source by its files, and return the reader. Raises InputError unless exactly one format matches."""
    matching: dict[str, None] = {}
    pascal = {"SegmentationClass", "Segmentation"}
    if source.find_name(masks.LABEL_MAP) and any(
        not pascal.isdisjoint(PurePosixPath(name).parts) for name in source.names
    ):
        matching["cvat"] = None
    if source.find_name(masks.METADATA):
        matching["hf"] = None
    faults: list[str] = []
    for name in yolo.yaml_files(source):
        try:
            yolo.read_class_names(source, name)
            matching["yolo"] = None
        except ImageError as error:
            faults.append(f"{error.message}. ")
    for name in source.find_suffix(".json")[:_TRIED]:
        try:
            value = source.json(name)
        except ImageError as error:
            faults.append(f"{error.message}. ")
            continue
        if kind := next((kind for kind, matches in _JSON.items() if matches(value)), ""):
            matching[kind] = None
    if not matching and source.find_suffix(".png"):
        matching["png"] = None
    if len(matching) == 1:
        return READERS[next(iter(matching))]
    if not matching:
        what = "folder" if is_folder(source.path) else "file"
        raise InputError(
            f"{source.path}: no corrections found in this {what}",
            f"{''.join(faults[:1])}The formats are: {', '.join(READERS)}. "
            "Set argument `source_format` to see why a format cannot be read.",
        )
    raise InputError(
        f"{source.path}: several formats match: {', '.join(matching)}", "Choose one with argument `source_format`."
    )
