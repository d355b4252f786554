"""Choose the reader for corrections by the name of a format, or detect the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats.reading import coco, cvat_xml, label_studio, labelme, masks, yolo
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
        Reader("cvat-xml", cvat_xml.read_cvat_xml),
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
    matching = dict.fromkeys(_matching_names(source))
    roots = {cvat_xml.root_of(source, name) for name in source.find_suffix(".xml")[:_TRIED]}
    if "annotations" in roots:
        matching["cvat-xml"] = None
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
    if not matching and "annotation" in roots:
        raise InputError(
            f"{source.path}: Pascal VOC boxes, or LabelMe 3.0, which cannot be imported",
            "Export it from CVAT as CVAT for images 1.1, or as Segmentation mask 1.1.",
        )
    if not matching and source.find_suffix(".png"):
        matching["png"] = None
    if len(matching) == 1:
        return READERS[next(iter(matching))]
    if not matching:
        what = "folder" if is_folder(source.path) else "file"
        raise InputError(
            f"{source.path}: no labels found in this {what}",
            f"{''.join(faults[:1])}The formats are: {', '.join(READERS)}. "
            "Set argument `source_format` to see why a format cannot be read.",
        )
    raise InputError(
        f"{source.path}: several formats match: {', '.join(matching)}", "Choose one with argument `source_format`."
    )


def _matching_names(source: Source) -> Iterator[str]:
    """Yield the formats that the names of the files show."""
    folders = {part for name in source.names for part in PurePosixPath(name).parts[:-1]}
    if source.find_name(masks.LABEL_MAP) and not folders.isdisjoint({"SegmentationClass", "Segmentation"}):
        yield "cvat"
    if source.find_name(masks.METADATA):
        yield "hf"
    if source.find_name(yolo.CLASS_LIST) and "labels" in folders and not yolo.yaml_files(source):
        yield "yolo"
