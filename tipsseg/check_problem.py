"""What `tipsseg check` finds, and how it reads records that others may have changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tipsseg.progress import printable

_Value = TypeVar("_Value")

_SPELLED_OUT = re.compile(r"\\u(dc[89a-f][0-9a-f])")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as a run leaves it: in which file, and what."""

    path: Path
    what: str

    def __str__(self) -> str:
        """One line, "path: what", that can be printed."""
        return printable(f"{self.path}: {self.what}").replace("\n", "\\n").replace("\r", "\\r")


def take(record: object, key: str, kind: type[_Value]) -> _Value:
    """The value of a key in a JSON object, where it is of this kind. Raises ValueError, as where it is none or no object."""
    value = record.get(key) if isinstance(record, dict) else None
    # JSON's true is an int to Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return value


def short(value: object) -> str:
    """A JSON value for a line of text."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def by(size: tuple[int, int]) -> str:
    """A size for a line of text: "480 x 640 (height x width)"."""
    return f"{size[0]} x {size[1]} (height x width)"


def class_text(names: Mapping[int, str], label_id: int) -> str:
    """A class for a line of text: "class 2 (tree)"."""
    return f"class {label_id} ({names[label_id]})"


def actual_path(folder: Path, name: str) -> Path:
    """The path below `folder` that a record names; in records, bytes that are no UTF-8 are spelled out."""
    literal = folder / name
    if "\\udc" not in name or os.path.lexists(literal):
        return literal
    return folder / _SPELLED_OUT.sub(lambda match: chr(int(match[1], 16)), name)
