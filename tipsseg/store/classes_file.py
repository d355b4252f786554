"""classes.json: what the label ids mean. Written for every run, whatever the formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipsseg.types import BACKGROUND, LabelClass, ignore_id
from tipsseg.util.files import json_bytes, read_regular
from tipsseg.util.json_values import parse, take
from tipsseg.util.ownership import Ownership
from tipsseg.util.printable import control_character

FILE_NAME = "classes.json"


def write_classes(ownership: Ownership, output: Path, classes: Sequence[LabelClass], background: Sequence[str]) -> Path:
    """Write `output`/classes.json and return its path; raises OutputError.

    Holds `background` and `ignore`, the ids of pixels without a class; `background_phrases`, what competed and was written as
    background; and `classes`: id, name, synonyms, colour "#rrggbb", supercategory, and min_confidence where a class has its own.
    """
    record = {
        "background": BACKGROUND,
        "ignore": ignore_id(len(classes)),
        "background_phrases": list(background),
        "classes": [class_record(each) for each in classes],
    }
    path = output / FILE_NAME
    ownership.write_run_file(path, json_bytes(record, indent=2) + b"\n")
    return path


def read_classes(output: Path) -> tuple[LabelClass, ...]:
    """The classes in `output`/classes.json, but for their least confidence, which only labelling needs.

    Raises OSError, and ValueError for a file that is not as it was written.
    """
    record = parse(read_regular(output / FILE_NAME))
    classes = tuple(_read_class(each) for each in take(record, "classes", list))
    if [each.id for each in classes] != list(range(1, len(classes) + 1)):
        raise ValueError("the ids of the classes are not 1, 2, ...")
    return classes


def _read_class(record: object) -> LabelClass:
    if what := control_character(take(record, "name", str)):
        raise ValueError(f"a name with the control character {what}")
    red, green, blue = bytes.fromhex(take(record, "colour", str).removeprefix("#"))
    return LabelClass(
        take(record, "id", int),
        take(record, "name", str),
        (red, green, blue),
        tuple(map(str, take(record, "synonyms", list))),
        take(record, "supercategory", str),
    )


def class_record(entry: LabelClass) -> dict[str, object]:
    """The entry of `classes` for one class."""
    record: dict[str, object] = {
        "id": entry.id,
        "name": entry.name,
        "synonyms": list(entry.synonyms),
        "colour": "#" + bytes(entry.colour).hex(),
        "supercategory": entry.supercategory or entry.name,
    }
    if entry.min_confidence is not None:
        record["min_confidence"] = entry.min_confidence
    return record
