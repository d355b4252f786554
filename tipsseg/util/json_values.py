"""Parse untrusted JSON, and read typed values from it."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

_Value = TypeVar("_Value")

#: Matches numbers that may exceed the range of floats.
_MAYBE_HUGE = re.compile(rb'\d{300}|(?<![\w."])\d[\d.]*[eE]\+?\d{3}')

#: Matches surrogate escapes. A lone surrogate cannot be encoded as UTF-8.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """Parse JSON.

    Raises ValueError for invalid JSON, and for deeply nested lists, NaN, infinity, numbers beyond the range of floats and strings
    that cannot be encoded as UTF-8.
    """
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        if _MAYBE_HUGE.search(data):
            json.loads(data, parse_float=_refuse_huge, parse_int=_refuse_huge)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _SURROGATE.search(data):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _refuse_huge(text: str) -> None:
    if math.isinf(float(text)):
        raise ValueError(f"the number {text[:20]}... is too large")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not valid JSON")


def take(record: object, key: str, kind: type[_Value]) -> _Value:
    """Return the value of a key in a JSON object. Raises ValueError unless it has the type `kind`."""
    value = record.get(key) if isinstance(record, dict) else None
    # In Python, True is an int.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return value


def take_share(record: object, key: str) -> float:
    """Return the value of a key in a JSON object. Raises ValueError unless it is a number from 0 to 1."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return float(value)


def short(value: object) -> str:
    """Return a JSON value as text for a message, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
