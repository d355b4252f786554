"""The formats that are read, and how each is recognised."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats.reading import coco, label_studio, labelme, masks, yolo
from tipsseg.formats.reading.found import Found
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.source import Source
from tipsseg.util.files import is_folder

#: Files that are looked into before a format is given up.
_TRIED = 20


@dataclass(frozen=True, slots=True)
class Reader:
    """A format of corrections.

    Attributes:
        name: Its name, that of the format that writes the same.
        images: Gives the images of a source, for the classes of a run by name.
    """

    name: str
    images: Callable[[Source, ClassNames], Iterator[Found]]


#: The formats by name.
READERS = {
    each.name: each
    for each in (
        Reader("png", masks.index_masks),
        Reader("cvat", masks.colour_masks),
        Reader("hf", masks.hugging_face),
        Reader("coco", coco.coco),
        Reader("labelme", labelme.labelme),
        Reader("label-studio", label_studio.label_studio),
        Reader("yolo", yolo.yolo),
    )
}

#: Formats of ours that are read as another.
_SAME = {"coco-polygon": "coco"}

#: What kind of JSON is of which format.
_JSON = {"coco": coco.is_coco, "labelme": labelme.is_labelme, "label-studio": label_studio.is_label_studio}


def find_reader(name: str) -> Reader:
    """Return the format of that name. Raises UsageError."""
    name = _SAME.get(name, name)
    if name not in READERS:
        close = difflib.get_close_matches(name.lower(), READERS, n=1)
        known = f"Corrections are read from: {', '.join(READERS)}."
        raise UsageError(f"unknown format {name!r}", f"Did you mean {close[0]!r}? {known}" if close else known)
    return READERS[name]


def recognise(source: Source) -> Reader:
    """Return the format of a source, by what is in it. Raises InputError if it may be none, or several."""
    last = {PurePosixPath(name).name for name in source.names}
    found: dict[str, None] = {}
    pascal = {"SegmentationClass", "Segmentation"}
    if "labelmap.txt" in last and any(not pascal.isdisjoint(PurePosixPath(name).parts) for name in source.names):
        found["cvat"] = None
    if "metadata.jsonl" in last:
        found["hf"] = None
    faults: list[str] = []
    for name in yolo.descriptions(source):
        try:
            yolo.class_names(source, name)
            found["yolo"] = None
        except ImageError as error:
            faults.append(f"{error.message}. ")
    for name in [name for name in source.names if name.lower().endswith(".json")][:_TRIED]:
        try:
            value = source.json(name)
        except ImageError as error:
            faults.append(f"{error.message}. ")
            continue
        if kind := next((kind for kind, matches in _JSON.items() if matches(value)), ""):
            found[kind] = None
    if not found and any(name.lower().endswith(".png") for name in source.names):
        found["png"] = None
    if len(found) == 1:
        return READERS[next(iter(found))]
    if not found:
        what = "a folder" if is_folder(source.path) else "a file"
        raise InputError(
            f"{source.path}: {what} without corrections in a format that is read",
            f"{''.join(faults[:1])}The formats are: {', '.join(READERS)}. "
            "Name one with argument `source_format` to learn what is wrong with it.",
        )
    raise InputError(
        f"{source.path}: it has several formats: {', '.join(found)}",
        "Name the one that counts with argument `source_format`.",
    )
