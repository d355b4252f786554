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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipsseg.errors import VocabularyError
from tipsseg.util.printable import quoted, shortened
from tipsseg.vocabulary.templates import TEMPLATES
from tipsseg.vocabulary.texts import in_place
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, check_number

_KEYS = ("classes", "background", "templates")
_CLASS_KEYS = ("name", "synonyms", "colour", "min_confidence", "supercategory", "templates", "negative")


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a vocabulary file, None where it says nothing. `make_vocabulary` checks the values."""

    specs: tuple[ClassSpec, ...]
    background: str | Sequence[str] | None = None
    templates: Sequence[str] | None = None


# ---- reading ----


def parse_toml(path: Path, text: str) -> Content:
    """Read the text of a TOML file; `path` names the file in errors.

    Raises VocabularyError for broken TOML, with the line, and for an unknown key, with the class that has it.
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
    with in_place(path):
        _require_known(table, _KEYS)
        classes = table.get("classes", [])
        if not isinstance(classes, list):
            raise VocabularyError("`classes` must be a list", 'For example: classes = ["panda leg", "tree"]')
        check_number(len(classes))
        specs = []
        for index, value in enumerate(classes):
            with in_place(class_index=index):
                specs.append(parse_class(value))
        return Content(tuple(specs), table.get("background"), _named_templates(table))


def parse_class(value: object) -> ClassSpec:
    """Read one item of `classes`: a name, or a table as `class_record` gives it. Raises VocabularyError for unknown keys."""
    if isinstance(value, str):
        return ClassSpec(value)
    if not isinstance(value, dict):
        raise VocabularyError(
            f"a class must be a text or a table, not {quoted(value)}", 'For example: { name = "tree" }'
        )
    table: dict[str, Any] = value
    _require_known(table, _CLASS_KEYS, f" of {quoted(table['name'])}" if isinstance(table.get("name"), str) else "")
    if "name" not in table:
        raise VocabularyError("a class without a name", 'Each needs one, for example: name = "tree"')
    return ClassSpec(**{**table, "templates": _named_templates(table)})


def _named_templates(table: Mapping[str, Any]) -> Any:
    value = table.get("templates")
    return TEMPLATES.get(value, value) if isinstance(value, str) else value


def _require_known(keys: Iterable[str], known: Sequence[str], of_class: str = "") -> None:
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(shortened(key.lower()), known, n=1)
            hint = f"Did you mean `{close[0]}`? " if close else ""
            hint += f"The keys are: {', '.join(known)}."
            if key == "background":
                hint = "Move it above the first [[classes]]; there it is for all."
            raise VocabularyError(f"unknown key `{shortened(key)}`{of_class}", hint)


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
    """Return where a key of too many parts begins, if there is one."""
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
    """Return the table of a class in a vocabulary file, as `parse_class` reads it, without what the class leaves open."""
    record: dict[str, object] = {
        "name": spec.name,
        "synonyms": list(spec.synonyms),
        "colour": spec.colour if isinstance(spec.colour, str | None) else "#" + bytes(spec.colour).hex(),
        "min_confidence": spec.min_confidence,
        "supercategory": spec.supercategory,
        "templates": list(spec.templates or ()),
        "negative": spec.negative or None,
    }
    return {key: value for key, value in record.items() if value not in (None, "", [])}


def _toml(value: object) -> str:
    # What JSON writes of texts, numbers, truth values and lists of them is TOML, but for one character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
