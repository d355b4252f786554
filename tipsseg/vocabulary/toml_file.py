"""Read and write vocabularies as TOML files.

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
    negative = true                         # competes, but is written as 0

Only `name` is required. A class with only a name may be a string: classes = ["panda leg", "tree"].
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipsseg.errors import VocabularyError
from tipsseg.util.printable import did_you_mean, quote, shorten
from tipsseg.vocabulary.templates import TEMPLATES
from tipsseg.vocabulary.texts import locate_errors
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, check_phrase_count

_KEYS = ("classes", "background", "templates")
_CLASS_KEYS = ("name", "synonyms", "colour", "min_confidence", "supercategory", "templates", "negative")


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a vocabulary file. `make_vocabulary` checks the values."""

    specs: tuple[ClassSpec, ...]
    background: str | Sequence[str] | None = None
    templates: Sequence[str] | None = None


# ---- reading ----


def parse_toml(path: Path, text: str) -> Content:
    """Parse the text of a TOML file; `path` names the file in errors.

    Raises VocabularyError with the line for invalid TOML, and with the class for an unknown key.
    """
    # The memory that tomllib needs grows with the square of the number of parts in a key.
    start = _find_long_key(text)
    if start is not None:
        reason = f"a key has more than {_MAX_PARTS} parts"
        raise VocabularyError(reason, "Dotted keys are not allowed.", path=path, line=text.count("\n", 0, start) + 1)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    except RecursionError as error:
        raise VocabularyError("not a vocabulary: lists or tables are nested too deeply", path=path) from error
    except ValueError as error:  # numbers with thousands of digits
        raise VocabularyError(f"not a vocabulary: {shorten(str(error))}", path=path) from error
    with locate_errors(path):
        _require_known(table, _KEYS)
        classes = table.get("classes", [])
        if not isinstance(classes, list):
            raise VocabularyError("`classes` must be a list", 'For example: classes = ["panda leg", "tree"]')
        check_phrase_count(len(classes))
        specs = []
        for index, value in enumerate(classes):
            with locate_errors(class_index=index):
                specs.append(parse_class(value))
        return Content(tuple(specs), table.get("background"), _resolve_templates(table))


def parse_class(value: object) -> ClassSpec:
    """Parse an item of `classes`: a name, or a table; see `class_record`. Raises VocabularyError for unknown keys."""
    if isinstance(value, str):
        return ClassSpec(value)
    if not isinstance(value, dict):
        raise VocabularyError(
            f"a class must be a string or a table, not {quote(value)}", 'For example: { name = "tree" }'
        )
    table: dict[str, Any] = value
    _require_known(table, _CLASS_KEYS, f" of {quote(table['name'])}" if isinstance(table.get("name"), str) else "")
    if "name" not in table:
        raise VocabularyError("a class has no name", 'For example: name = "tree"')
    return ClassSpec(**{**table, "templates": _resolve_templates(table)})


def _resolve_templates(table: Mapping[str, Any]) -> Any:
    value = table.get("templates")
    return TEMPLATES.get(value, value) if isinstance(value, str) else value


def _require_known(keys: Iterable[str], known: Sequence[str], of_class: str = "") -> None:
    for key in keys:
        if key not in known:
            hint = f"{did_you_mean(key, known)}The keys are: {', '.join(known)}."
            if key == "background":
                hint = "Move it above the first [[classes]], where it applies to all classes."
            raise VocabularyError(f"unknown key `{shorten(key)}`{of_class}", hint)


# ---- syntax ----


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> VocabularyError:
    message = str(error)
    position = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = text.count("\n") + 1
    if position:
        message = message[: position.start()]
        line = int(position[1]) if position[1] else line
    twice = message.startswith(("Cannot", "Duplicate"))  # for example: cannot overwrite a value
    hint = _DUPLICATE_HINT if twice else _SYNTAX_HINT
    return VocabularyError(f"not TOML: {shorten(message)}", hint, path=path, line=line)


_DUPLICATE_HINT = "Set every key once, and `classes` either as a list or as [[classes]]."
_SYNTAX_HINT = 'Put texts in quotes, as in name = "tree"; separate the items of a list with commas and end it with "]".'

#: The maximum number of parts in a dotted key, such as a.b.c. Vocabulary keys have one part.
_MAX_PARTS = 32

# An unclosed quote ends with its line, so that matching takes linear time.
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?)"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+")


def _find_long_key(text: str) -> int | None:
    """Return the start of the first key with too many parts, or None."""
    for match in _KEY.finditer(text):
        if match[0].count(".") >= _MAX_PARTS and len(re.findall(_PART, match[0])) > _MAX_PARTS:
            return match.start()
    return None


# ---- writing ----


def vocabulary_toml(vocabulary: Vocabulary) -> str:
    """Format a vocabulary as the text of a TOML file. Reading it back returns the same classes and phrases."""
    names = [name for name, templates in TEMPLATES.items() if templates == vocabulary.templates]
    background = "auto" if vocabulary.auto else list(vocabulary.background) or "none"
    lines = [
        f"background = {_toml(background)}",
        f"templates = {_toml(names[0] if names else list(vocabulary.templates))}",
    ]
    for spec in vocabulary.specs:
        lines += ["", "[[classes]]", *(f"{key} = {_toml(value)}" for key, value in class_record(spec).items())]
    return "\n".join(lines) + "\n"


def class_record(spec: ClassSpec) -> dict[str, object]:
    """Return a class as a table for a vocabulary file, without unset values. `parse_class` reads it."""
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
    # JSON strings, numbers, booleans and lists are valid TOML, except for one character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
