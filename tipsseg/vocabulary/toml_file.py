"""Vocabularies as TOML files, read and written.

    background = "auto"                     # auto, none, or a list of phrases
    templates = "protocol"                  # protocol, plain, or a list of sentences with {}

    [[classes]]
    name = "panda leg"
    synonyms = ["leg of a panda", "paw"]
    colour = "#e63946"                      # or [230, 57, 70]
    min_confidence = 0.5
    supercategory = "panda"
    templates = ["a photo of a {}."]

    [[classes]]
    name = "bamboo"
    negative = true                         # competes, is written as 0

Only `name` is needed, and a class that has nothing else may be a text: classes = ["panda leg", "tree"].
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import TypeGuard

from tipsseg.errors import VocabularyError
from tipsseg.types import Colour
from tipsseg.util.printable import quoted, shortened
from tipsseg.vocabulary.templates import TEMPLATES, check_templates
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, check_number

_KEYS = ("classes", "background", "templates")
_CLASS_KEYS = ("name", "synonyms", "colour", "min_confidence", "supercategory", "templates", "negative")

Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Content:
    """What a vocabulary file says; None where it says nothing."""

    specs: tuple[ClassSpec, ...]
    background: str | tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None


# ---- reading ----


def parse_toml(path: Path, text: str) -> Content:
    """Read the text of a TOML file; `path` names the file in errors.

    Raises:
        VocabularyError: For broken TOML, with the line; for an unknown key or an impossible value, with the class that has it.
    """
    # tomllib takes memory by the square of the number of parts.
    long = _long_key(text)
    if long is not None:
        reason = f"a key of more than {_MOST_PARTS} parts"
        raise VocabularyError(reason, "The keys have one.", path=path, line=text.count("\n", 0, long) + 1)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    except RecursionError as error:
        raise VocabularyError("not a vocabulary: lists in lists in lists, or tables in tables", path=path) from error
    except ValueError as error:  # numbers of thousands of digits
        raise VocabularyError(f"not a vocabulary: {shortened(str(error))}", path=path) from error
    try:
        return _parse_table(table)
    except VocabularyError as error:
        raise VocabularyError(error.reason, error.hint, path=path, class_index=error.class_index) from error


def _parse_table(table: Table) -> Content:
    for key in table:
        _require_known(key, _KEYS)
    background = _background(table)
    templates = _templates(table)
    if templates is not None:
        check_templates(templates)
    classes = table.get("classes", [])
    if not isinstance(classes, list):
        raise VocabularyError("`classes` must be a list", 'For example: classes = ["panda leg", "tree"]')
    check_number(len(classes))
    specs = []
    for index, value in enumerate(classes):
        try:
            specs.append(parse_class(value))
        except VocabularyError as error:
            raise VocabularyError(error.reason, error.hint, class_index=index) from error
    return Content(tuple(specs), background, templates)


def _background(table: Table) -> str | tuple[str, ...] | None:
    value = table.get("background")
    if value is None or value in ("auto", "none"):
        return value if isinstance(value, str) else None
    if not _is_texts(value):
        raise VocabularyError(f'`background` must be "auto", "none" or a list of phrases, not {_shown(value)}')
    return tuple(value)


def _templates(table: Table, what: str = "`templates`") -> tuple[str, ...] | None:
    """The value of `templates`, by its type alone; `what` names it in an error."""
    value = table.get("templates")
    if value is None:
        return None
    if isinstance(value, str) and value in TEMPLATES:
        return TEMPLATES[value]
    if not _is_texts(value):
        known = ", ".join(f'"{name}"' for name in TEMPLATES)
        raise VocabularyError(f"{what} must be {known} or a list of texts, not {_shown(value)}")
    return tuple(value)


def parse_class(value: object) -> ClassSpec:
    """Read one item of `classes`: a name, or a table as `class_record` gives it. Raises VocabularyError."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        raise VocabularyError(
            f"a class must be a text or a table, not {_shown(value)}", 'For example: { name = "tree" }'
        )
    for key in value:
        try:
            _require_known(key, _CLASS_KEYS)
        except VocabularyError as error:
            hint = "Move it above the first [[classes]]; there it is for all." if key == "background" else error.hint
            of_class = f" of {quoted(value['name'])}" if isinstance(value.get("name"), str) else ""
            raise VocabularyError(f"{error.reason}{of_class}", hint) from error
    if "name" not in value:
        raise VocabularyError("a class without a name", 'Each needs one, for example: name = "tree"')
    name = value["name"]
    if not isinstance(name, str) or not name.replace("_", " ").strip():
        raise VocabularyError(f"a name must be a text that is not empty, not {_shown(name)}")
    if "synonyms" in value and not _is_texts(value["synonyms"]):
        raise VocabularyError(f"`synonyms` of {quoted(name)} must be a list of texts, not {_shown(value['synonyms'])}")
    templates = _templates(value, f"`templates` of {quoted(name)}")
    for key, kind, what in (("supercategory", str, "a text"), ("negative", bool, "true or false")):
        if not isinstance(value.get(key, kind()), kind):
            raise VocabularyError(f"`{key}` of {quoted(name)} must be {what}, not {_shown(value[key])}")
    confidence = value.get("min_confidence")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float | None):
        raise VocabularyError(f"`min_confidence` of {quoted(name)} must be a number, not {_shown(confidence)}")
    return ClassSpec(
        name,
        tuple(value.get("synonyms", ())),
        _colour(name, value.get("colour")),
        confidence,
        value.get("supercategory", ""),
        templates,
        value.get("negative", False),
    )


def _colour(name: str, value: object) -> Colour | None:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    if isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each <= 255 for each in value):
        return value[0], value[1], value[2]
    raise VocabularyError(
        f"{_shown(value)} is no colour of {quoted(name)}",
        'Write "#rrggbb" or [red, green, blue], each 0 to 255.',
    )


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _require_known(key: str, known: Sequence[str]) -> None:
    if key not in known:
        close = difflib.get_close_matches(shortened(key.lower()), known, n=1)
        guess = f"Did you mean `{close[0]}`? " if close else ""
        raise VocabularyError(f"unknown key `{shortened(key)}`", f"{guess}The keys are: {', '.join(known)}.")


def _shown(value: object) -> str:
    """A value of a file for a line of text, about as TOML writes it."""
    if isinstance(value, date | time):  # which JSON does not have
        return value.isoformat()
    try:
        return shortened(_toml(value))
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return quoted(value)


# ---- syntax ----


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> VocabularyError:
    message = str(error)
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = text.count("\n") + 1
    if place:
        message = message[: place.start()]
        line = int(place[1]) if place[1] else line
    twice = message.startswith(("Cannot", "Duplicate"))  # overwrite, declare twice, mutate
    hint = _GIVEN_ONCE if twice else _WRITTEN
    return VocabularyError(f"not TOML: {shortened(message)}", hint, path=path, line=line)


_GIVEN_ONCE = "A key is given once, and `classes` either as a list or as [[classes]]."
_WRITTEN = 'Texts stand in quotes, as in name = "tree"; items of a list have commas between them, and "]" ends it.'

#: Parts of a key, as in a.b.c: no table of a vocabulary lies that deep.
_MOST_PARTS = 32

# A quote that is not closed ends with its line, so that nothing is read twice.
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?)"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+")


def _long_key(text: str) -> int | None:
    """Where a key of too many parts begins; None where every key is short enough."""
    for found in _KEY.finditer(text):
        if found[0].count(".") >= _MOST_PARTS and len(re.findall(_PART, found[0])) > _MOST_PARTS:
            return found.start()
    return None


# ---- writing ----


def vocabulary_toml(vocabulary: Vocabulary) -> str:
    """Write a vocabulary as the text of a TOML file, which reads back as the same classes and phrases."""
    named = [name for name, known in TEMPLATES.items() if known == vocabulary.templates]
    background = "auto" if vocabulary.auto else list(vocabulary.background) or "none"
    lines = [
        f"background = {_toml(background)}",
        f"templates = {_toml(named[0] if named else list(vocabulary.templates))}",
    ]
    for spec in vocabulary.specs:
        lines += ["", "[[classes]]", *(f"{key} = {_toml(value)}" for key, value in class_record(spec).items())]
    return "\n".join(lines) + "\n"


def class_record(spec: ClassSpec) -> dict[str, object]:
    """The table of a class in a vocabulary file, as `parse_class` reads it; what the class leaves open is not in it."""
    record: dict[str, object] = {
        "name": spec.name,
        "synonyms": list(spec.synonyms),
        "colour": "#" + bytes(spec.colour).hex() if spec.colour else None,
        "min_confidence": spec.min_confidence,
        "supercategory": spec.supercategory,
        "templates": list(spec.templates or ()),
        "negative": spec.negative or None,
    }
    return {key: value for key, value in record.items() if value not in (None, "", [])}


def _toml(value: object) -> str:
    # What JSON writes of texts, numbers, truth values and lists of them is TOML, but for one character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
