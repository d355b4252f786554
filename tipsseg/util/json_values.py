"""Reading records back, which others may have changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

_Value = TypeVar("_Value")

#: What may be half of a surrogate pair, for which there is no UTF-8.
_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")

_SPELLED_OUT = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def parse(data: bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError, also for lists in lists without end, NaN, infinity, numbers of thousands of digits, and texts without UTF-8.
    """
    try:
        value = json.loads(data, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error
    if _HALF_A_PAIR.search(data):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def take(record: object, key: str, kind: type[_Value]) -> _Value:
    """The value of a key in a JSON object, where it is of this kind. Raises ValueError, as where it is none or no object."""
    value = record.get(key) if isinstance(record, dict) else None
    # JSON's true is an int to Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return value


def take_share(record: object, key: str) -> float:
    """The value of a key in a JSON object, where it is a number from 0 to 1. Raises ValueError."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return float(value)


def short(value: object) -> str:
    """A JSON value for a line of text."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_inside(name: str) -> bool:
    """Whether a name in a record is a relative path that stays in its folder."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and "\0" not in name
        and not PurePath(name).is_absolute()
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and name != "."
    )


def actual_path(folder: Path, name: str) -> Path:
    """The path below `folder` that a record names; see `actual_name`."""
    literal = folder / name
    return literal if "\\udc" not in name or os.path.lexists(literal) else folder / actual_name(name)


def actual_name(name: str) -> str:
    """A name with the bytes back that are no UTF-8, which records spell out; see `records.printable_path`."""
    return _SPELLED_OUT.sub(lambda match: chr(int(match[1], 16)), name)
