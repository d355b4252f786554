"""Parse JSON texts that others may have changed, and take values out of them."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

_Value = TypeVar("_Value")

#: What may be a number beyond the floats.
_MAYBE_HUGE = re.compile(rb'\d{300}|(?<![\w."])\d[\d.]*[eE]\+?\d{3}')

#: What may be half of a surrogate pair, for which there is no UTF-8.
_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: For what is no JSON, and for endlessly nested lists, NaN, infinity, numbers that no float holds and texts that
            cannot be written as UTF-8.
    """
    try:
        value = json.loads(data, parse_constant=_no_number)
        if _MAYBE_HUGE.search(data):
            json.loads(data, parse_float=_refuse_huge, parse_int=_refuse_huge)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error
    if _HALF_A_PAIR.search(data):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _refuse_huge(text: str) -> None:
    if math.isinf(float(text)):
        raise ValueError(f"{text[:20]}... is too large a number")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def take(record: object, key: str, kind: type[_Value]) -> _Value:
    """Take the value of a key out of a JSON object. Raises ValueError unless the value is of this kind."""
    value = record.get(key) if isinstance(record, dict) else None
    # JSON's true is an int to Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return value


def take_share(record: object, key: str) -> float:
    """Take a number from 0 to 1 out of a JSON object. Raises ValueError for any other value."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return float(value)


def short(value: object) -> str:
    """Shorten a JSON value for a message, to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
