"""classes.json: what the label ids mean. Written for every run, whatever the formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipsseg.types import BACKGROUND, LabelClass, ignore_id
from tipsseg.util.files import json_bytes, read_regular
from tipsseg.util.json_values import parse, take
from tipsseg.util.printable import control_character

CLASSES_FILE = "classes.json"


def classes_json(classes: Sequence[LabelClass], background: Sequence[str]) -> bytes:
    """Return the content of classes.json.

    It holds `background` and `ignore`, the ids of pixels without a class; `background_phrases`, what competed and was written as
    background; and `classes`: id, name, synonyms, colour "#rrggbb", supercategory, and min_confidence where a class has its own.
    """
    record = {
        "background": BACKGROUND,
        "ignore": ignore_id(len(classes)),
        "background_phrases": list(background),
        "classes": [_class_record(each) for each in classes],
    }
    return json_bytes(record, indent=2) + b"\n"


def read_classes(output: Path) -> tuple[LabelClass, ...]:
    """The classes in `output`/classes.json, but for their minimum confidence, which only labelling needs.

    Raises OSError, and ValueError for a file that is not as it was written.
    """
    record = parse(read_regular(output / CLASSES_FILE))
    names = ordered_names(record)
    return tuple(
        _read_class(label_id, name, each)
        for label_id, (name, each) in enumerate(zip(names, record["classes"], strict=True), start=1)
    )


def ordered_names(record: object) -> tuple[str, ...]:
    """Return the names of the classes 1, 2, ... in the content of a classes.json. Raises ValueError for other ids."""
    named = class_names(record)
    if [label_id for label_id, _ in named] != list(range(1, len(named) + 1)):
        raise ValueError("the ids of the classes are not 1, 2, ...")
    return tuple(name for _, name in named)


def class_names(record: object) -> tuple[tuple[int, str], ...]:
    """The id and the name of each class in the content of a classes.json; an id that is left out is the class's number.

    Raises ValueError for what has no classes.
    """
    classes = take(record, "classes", list)
    return tuple(
        (take(each, "id", int) if not isinstance(each, dict) or "id" in each else number, take(each, "name", str))
        for number, each in enumerate(classes, start=1)
    )


def _read_class(label_id: int, name: str, record: object) -> LabelClass:
    if what := control_character(name):
        raise ValueError(f"a name with the control character {what}")
    red, green, blue = bytes.fromhex(take(record, "colour", str).removeprefix("#"))
    return LabelClass(
        label_id,
        name,
        (red, green, blue),
        tuple(map(str, take(record, "synonyms", list))),
        take(record, "supercategory", str),
    )


def _class_record(entry: LabelClass) -> dict[str, object]:
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
