"""Parse untrusted JSON and read typed values from it; encode JSON, and lists with one record per line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints, overload

_Value = TypeVar("_Value")

#: Matches numbers that may exceed the range of floats.
_MAYBE_HUGE = re.compile(rb'\d{300}|(?<![\w."])\d[\d.]*[eE]\+?\d{3}')

#: Python's form of bytes in file names that are not UTF-8.
_SURROGATE = re.compile("[\ud800-\udfff]")

#: Matches surrogate escapes. A lone surrogate cannot be encoded as UTF-8.
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """Parse JSON.

    Raise ValueError for invalid JSON, and for deeply nested lists, NaN, infinity, numbers beyond the range of floats and strings
    that cannot be encoded as UTF-8.
    """
    try:
        value = _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
        if _MAYBE_HUGE.search(data):
            json.loads(data, parse_float=_refuse_huge, parse_int=_refuse_huge)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _ESCAPED_SURROGATE.search(data):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not valid JSON")


#: Made once: for a short text, making it takes most of the time.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse_huge(text: str) -> None:
    if math.isinf(float(text)):
        raise ValueError(f"the number {text[:20]}... is too large")


@overload
def take(record: object, key: str, kind: type[_Value]) -> _Value: ...
@overload
def take(record: object, key: str, kind: object) -> Any: ...
def take(record: object, key: str, kind: Any) -> Any:
    """Return the value of a key in a JSON object, converted by `read_value`; None stands for a key that is not there."""
    return read_value(kind, record.get(key) if isinstance(record, dict) else None, key)


def read_value(kind: Any, value: object, name: str) -> Any:
    """Convert a JSON value to a type.

    A list becomes a tuple, a text a datetime with its time zone, and an object a dataclass; keys that are no fields are ignored.

    Args:
        kind: str, int, float, bool, dict, list, datetime, a Literal, a tuple, a dataclass of such types, or one of them or None.
        value: The value.
        name: The name of the value in errors.

    Raises:
        ValueError: The value has another type; the message names the field.
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if NoneType in parts:
        return None if value is None else read_value(parts[0], value, name)
    if is_dataclass(origin) and isinstance(value, dict):
        kinds = _hints(kind)
        given = [
            each.name
            for each in fields(origin)
            if each.name in value or each.default is each.default_factory is MISSING
        ]
        return kind(**{key: read_value(kinds[key], value.get(key), f"{name}.{key}".lstrip(".")) for key in given})
    if origin is tuple and isinstance(value, list):
        each = parts[:1] * len(value) if parts[-1] is ... else parts
        if len(each) == len(value):
            return tuple(map(read_value, each, value, (f"{name}[{index}]" for index in range(len(value)))))
    if origin is datetime and isinstance(value, str):
        value = datetime.fromisoformat(value)
        if value.tzinfo is None:
            raise ValueError(f"`{name}` has no time zone")
    if origin is float and type(value) is int:
        value = float(value)
    if origin is Literal:
        fits = isinstance(value, str) and value in parts
    else:
        fits = isinstance(value, origin) and (
            origin is bool or not isinstance(value, bool)
        )  # in Python, True is an int
    if not fits:
        raise ValueError(f"no `{name}`" if value is None else f"`{name}` is {short(value)}")
    return value


_hints = cache(get_type_hints)


def take_share(record: object, key: str) -> float:
    """Return the value of a key in a JSON object. Raise ValueError unless it is a number from 0 to 1."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"no `{key}`" if value is None else f"`{key}` is {short(value)}")
    return float(value)


def short(value: object) -> str:
    """Return a JSON value as text for a message, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _json_encoder(indent: int | None) -> json.JSONEncoder:
    # json.dumps would create one for every value.
    return json.JSONEncoder(indent=indent, ensure_ascii=False, allow_nan=False)


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """Encode a value as JSON in UTF-8, without escapes for non-ASCII characters.

    Python decodes non-UTF-8 bytes in file names as lone surrogates, which cannot be encoded, and which parsers in other languages
    reject as JSON escapes. They become the literal text `\\udc..`.
    """
    text = _json_encoder(indent).encode(value)
    if text.isascii():
        return text.encode()
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode("utf-8")


def encode_list(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Encode rows as a JSON list, in pieces."""
    yield b"["
    separator = b"\n"
    for row in rows:
        yield separator + row
        separator = b",\n"
    yield b"\n]" if separator == b",\n" else b"]"


def encode_section(key: bytes, rows: Iterable[bytes]) -> Iterator[bytes]:
    """Encode rows as a JSON list under a key, in pieces. The key must not be the first one in its object."""
    yield b',\n"' + key + b'": '
    yield from encode_list(rows)


def prepend(members: bytes, row: bytes) -> bytes:
    """Insert members, such as `"id": 1`, at the start of a JSON object."""
    return b"{" + members + b", " + row.removeprefix(b"{")
