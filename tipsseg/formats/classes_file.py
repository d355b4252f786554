"""Write and read classes.json, which defines the label ids. Every run writes it, whatever its formats."""

from __future__ import annotations

from collections.abc import Sequence

from tipsseg.types import BACKGROUND, LabelClass, ignore_id
from tipsseg.util.files import json_bytes
from tipsseg.util.json_values import take

CLASSES_FILE = "classes.json"


def classes_json(classes: Sequence[LabelClass], background: Sequence[str]) -> bytes:
    """Return the content of classes.json.

    Keys: `background` and `ignore`, the ids of pixels without a class; `background_phrases`, the phrases whose pixels are written
    as background; and `classes`: id, name, synonyms, colour "#rrggbb", supercategory, and min_confidence if the class has its own.
    """
    record = {
        "background": BACKGROUND,
        "ignore": ignore_id(len(classes)),
        "background_phrases": list(background),
        "classes": [_class_record(entry) for entry in classes],
    }
    return json_bytes(record, indent=2) + b"\n"


def ordered_names(record: object) -> tuple[str, ...]:
    """Return the class names in a parsed classes.json, in the order of their ids. Raises ValueError unless the ids are 1, 2, ..."""
    names = names_by_id(record)
    if [label_id for label_id, _ in names] != list(range(1, len(names) + 1)):
        raise ValueError("the class ids are not 1, 2, ...")
    return tuple(name for _, name in names)


def names_by_id(record: object) -> tuple[tuple[int, str], ...]:
    """Return the id and name of each class in a parsed classes.json. A missing id defaults to the position, from 1.

    Raises ValueError if the record is not a valid classes.json.
    """
    classes = take(record, "classes", list)
    return tuple(
        (take(entry, "id", int) if not isinstance(entry, dict) or "id" in entry else number, take(entry, "name", str))
        for number, entry in enumerate(classes, start=1)
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
