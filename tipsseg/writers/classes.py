"""classes.json: what the label ids mean. Written for every run, whatever the formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipsseg.files import atomic_write, json_bytes
from tipsseg.records import BACKGROUND, Colour, LabelClass, ignore_id

FILE_NAME = "classes.json"


def write_classes(output: Path, classes: Sequence[LabelClass]) -> Path:
    """Write `output`/classes.json and return its path; raises OutputError.

    Holds `background` and `ignore`, the ids of pixels without a class, and `classes`: id, name and colour "#rrggbb".
    """
    record = {
        "background": BACKGROUND,
        "ignore": ignore_id(len(classes)),
        "classes": [{"id": each.id, "name": each.name, "colour": _hex(each.colour)} for each in classes],
    }
    path = output / FILE_NAME
    atomic_write(path, json_bytes(record, indent=2) + b"\n")
    return path


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()
