"""Vocabulary files: TOML, or plain text with one class a line; and the presets that ship with the package.

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

Only `name` is needed, and a class that has nothing else may be a string: classes = ["panda leg", "tree"].
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TypeGuard

from tipsseg.errors import VocabularyError
from tipsseg.types import Colour
from tipsseg.util.printable import quoted, shortened
from tipsseg.util.text_file import content_lines, is_there, read_text
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, TEMPLATES, check_templates
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, check_number, make_vocabulary

_FOLDER = resources.files("tipsseg") / "assets" / "vocabularies"

_KEYS = ("classes", "background", "templates")
_CLASS_KEYS = ("name", "synonyms", "colour", "min_confidence", "supercategory", "templates", "negative")

Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file says; None where it says nothing."""

    entries: tuple[ClassSpec, ...]
    background: str | tuple[str, ...] | None
    templates: tuple[str, ...] | None


def preset_names() -> tuple[str, ...]:
    """The presets, sorted."""
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    )


def preset_summary(name: str) -> str:
    """What the preset is, in a line: the first comment of its file."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()


def read_vocabulary(
    source: str | Path,
    background: str | Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Vocabulary:
    """The vocabulary of a preset's name, or of a file.

    A file with the name of a preset is given as a path: "./ade20k". Files that end in .toml are TOML, all others have one
    class a line. `background` and `templates` replace those of the file; see `make_vocabulary` for their values. Templates
    that the file gives to a single class stay.

    Raises VocabularyError, with path and line where there is one.
    """
    if not isinstance(source, str | Path):
        raise VocabularyError(f"a vocabulary is the name of a preset or a path, not {quoted(source)}")
    path = _locate(source)
    toml = path.suffix.lower() == ".toml"
    text = read_text(path, "a vocabulary file")
    content = _parse_toml(path, text) if toml else _parse_lines(path, text)
    if not content.entries:
        hint = 'Add [[classes]] with a name, or a list: classes = ["panda leg", "tree"]'
        raise VocabularyError("no classes in the file", hint if toml else "Write one class a line.", path=path)
    if all(entry.negative for entry in content.entries):
        raise VocabularyError(
            "all classes in the file are negative", "Leave out `negative` where a label is wanted.", path=path
        )
    if background is None:
        background = "auto" if content.background is None else content.background
    if templates is None:
        templates = PROTOCOL_TEMPLATES if content.templates is None else content.templates
    preset = source in preset_names()
    try:
        return make_vocabulary(content.entries, background, templates, path.stem if preset else path.name)
    except VocabularyError as error:
        if error.entry is None:
            raise VocabularyError(error.reason, error.hint, path=Path(source) if preset else path) from error
        line = _line_of_class(text, error.entry, error.key) if toml else _line_of_name(text, error.entry)
        raise VocabularyError(
            error.reason, error.hint, path=path, line=line, entry=error.entry, key=error.key
        ) from error


def vocabulary_toml(vocabulary: Vocabulary) -> str:
    """A vocabulary as a TOML file that reads back as the same classes and phrases."""
    named = [name for name, known in TEMPLATES.items() if known == vocabulary.templates]
    background = "auto" if vocabulary.auto else list(vocabulary.background) or "none"
    lines = [
        f"background = {_toml(background)}",
        f"templates = {_toml(named[0] if named else list(vocabulary.templates))}",
    ]
    for entry in vocabulary.entries:
        lines += ["", "[[classes]]", *(f"{key} = {_toml(value)}" for key, value in entry_record(entry).items())]
    return "\n".join(lines) + "\n"


def entry_record(entry: ClassSpec) -> dict[str, object]:
    """The keys that an entry has in a vocabulary file; those that it leaves open are left out."""
    record: dict[str, object] = {
        "name": entry.name,
        "synonyms": list(entry.synonyms),
        "colour": "#" + bytes(entry.colour).hex() if entry.colour else None,
        "min_confidence": entry.min_confidence,
        "supercategory": entry.supercategory,
        "templates": list(entry.templates or ()),
        "negative": entry.negative or None,
    }
    return {key: value for key, value in record.items() if value not in (None, "", [])}


def _toml(value: object) -> str:
    # What JSON writes of texts, numbers, truth values and lists of them is TOML, but for one character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def _shown(value: object) -> str:
    """A value of a file for a line of text, about as TOML writes it."""
    if isinstance(value, date | time):  # which JSON does not have
        return value.isoformat()
    try:
        return shortened(_toml(value))
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return quoted(value)


def _locate(source: str | Path) -> Path:
    presets = preset_names()
    if isinstance(source, str) and source in presets:
        return Path(str(_FOLDER / f"{source}.toml"))
    path = Path(source)
    if not str(source) or not is_there(path):
        close = difflib.get_close_matches(shortened(str(source).lower()), presets, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise VocabularyError(
            f"the vocabulary {quoted(str(source))} is no file and no preset",
            f"{guess}The presets are: {', '.join(presets)}.",
        )
    return path


def _parse_lines(path: Path, text: str) -> _Content:
    if path.suffix.lower() in _OTHER_KINDS:
        raise VocabularyError(
            f"a {path.suffix} file, where TOML or one class a line is understood",
            "Write one class a line into a .txt file, or see `tipsseg vocab show voc20` for TOML.",
            path=path,
        )
    lines = list(content_lines(text))
    _check_number(path, len(lines))
    for pattern, what, hint in _NO_LINES:
        for number, line in lines:
            if re.search(pattern, line):
                raise VocabularyError(f"{what}, in a file that has one class a line", hint, path=path, line=number)
    if len(lines) == 1 and "," in lines[0][1]:
        raise VocabularyError(
            "one line with commas would be one class, commas and all",
            "Write one class a line.",
            path=path,
            line=lines[0][0],
        )
    for number, line in lines:
        if _BETWEEN.search(line):
            raise VocabularyError(
                "a comma between two names, in a file that has one class a line",
                "Write one class a line. A name that has such a comma is given in a file that ends in .toml.",
                path=path,
                line=number,
            )
    return _Content(tuple(ClassSpec(line) for _, line in lines), None, None)


_OTHER_KINDS = (".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".xml")

_NUMBERS = "Leave out the numbers; ids are given in the order of the lines, from 1."

# What a line of a plain list never looks like, and how it comes to be there. TOML first: its lists have commas at line ends too.
_NO_LINES = (
    (r"^\[\[classes\]\]$|^classes\s*=\s*\[", "this looks like TOML", "Give the file a name that ends in .toml."),
    (r",$", "a comma at the end of the line", "Write one class a line, without commas between them."),
    (r"\t", "a tab in the line", "Leave out columns of numbers; ids are given in the order of the lines."),
    (r"^-\s|^\w+:$", "this looks like YAML", "Write one class a line, and nothing else."),
    (r"^\d+\s*[:=]|^\d+[.)]\s", "a number before the name", _NUMBERS),
)

#: A comma that is no part of a name; "salt, pepper" may be one.
_BETWEEN = re.compile(r"[^\s,\d],[^\s,]")

#: Parts of a key, as in a.b.c: no table of a vocabulary lies that deep.
_MOST_PARTS = 32

# A quote that is not closed ends with its line, so that nothing is read twice.
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?)"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+")


def _long_key(text: str) -> int | None:
    """Where a key of too many parts begins; None where there is none."""
    for found in _KEY.finditer(text):
        if found[0].count(".") >= _MOST_PARTS and len(re.findall(_PART, found[0])) > _MOST_PARTS:
            return found.start()
    return None


def _check_number(path: Path, number: int) -> None:
    """Raise VocabularyError for more classes than phrases may be, before much is made of them."""
    try:
        check_number(number)
    except VocabularyError as error:
        raise VocabularyError(error.reason, error.hint, path=path) from error


def _parse_toml(path: Path, text: str) -> _Content:
    # tomllib takes memory by the square of the number of parts.
    long = _long_key(text)
    if long is not None:
        reason = f"a key of more than {_MOST_PARTS} parts"
        raise VocabularyError(reason, "The keys have one.", path=path, line=_line_at(text, long))
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    except RecursionError as error:
        raise VocabularyError("not a vocabulary: lists in lists in lists, or tables in tables", path=path) from error
    except ValueError as error:  # numbers of thousands of digits
        raise VocabularyError(f"not a vocabulary: {shortened(str(error))}", path=path) from error
    key = ""
    try:
        for key in table:
            _require_known(key, _KEYS)
        key = "background"
        background = _background(table)
        key = "templates"
        templates = _templates(table)
        if templates is not None:
            check_templates(templates)
        key = "classes"
        classes = table.get("classes", [])
        if not isinstance(classes, list):
            raise VocabularyError("`classes` must be a list", 'For example: classes = ["panda leg", "tree"]')
        check_number(len(classes))
    except VocabularyError as error:
        line = _line_where(text, lambda read, key=key: key in read)  # type: ignore[misc]
        raise VocabularyError(error.reason, error.hint, path=path, line=line) from error
    entries = []
    for index, each in enumerate(classes):
        try:
            entries.append(parse_entry(each))
        except _KeyError as error:
            line = _line_of_class(text, index, error.key)
            raise VocabularyError(error.reason, error.hint, path=path, line=line, entry=index, key=error.key) from error
    return _Content(tuple(entries), background, templates)


class _KeyError(VocabularyError):
    """Something is wrong with a key of a class."""

    def __init__(self, key: str, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint, key=key)


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


def parse_entry(value: object) -> ClassSpec:
    """The entry that a vocabulary file means by an item of `classes`; see `entry_record`. Raises VocabularyError."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        raise _KeyError("", f"a class must be a text or a table, not {_shown(value)}", 'For example: { name = "tree" }')
    for key in value:
        try:
            _require_known(key, _CLASS_KEYS)
        except VocabularyError as error:
            hint = "Move it above the first [[classes]]; there it is for all." if key == "background" else error.hint
            raise _KeyError(key, error.reason, hint) from error
    if "name" not in value:
        raise _KeyError("", "a class without a name", 'Each needs one, for example: name = "tree"')
    name = value["name"]
    if not isinstance(name, str) or not name.replace("_", " ").strip():
        raise _KeyError("name", f"a name must be a text that is not empty, not {_shown(name)}")
    if "synonyms" in value and not _is_texts(value["synonyms"]):
        raise _KeyError(
            "synonyms", f"`synonyms` of {quoted(name)} must be a list of texts, not {_shown(value['synonyms'])}"
        )
    try:
        templates = _templates(value, f"`templates` of {quoted(name)}")
    except VocabularyError as error:
        raise _KeyError("templates", error.reason, error.hint) from error
    for key, kind, what in (("supercategory", str, "a text"), ("negative", bool, "true or false")):
        if not isinstance(value.get(key, kind()), kind):
            raise _KeyError(key, f"`{key}` of {quoted(name)} must be {what}, not {_shown(value[key])}")
    confidence = value.get("min_confidence")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float | None):
        raise _KeyError(
            "min_confidence", f"`min_confidence` of {quoted(name)} must be a number, not {_shown(confidence)}"
        )
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
    raise _KeyError(
        "colour",
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


# ---- where in the file ----
# tomllib says where the syntax is broken, but not where a value stands. That is found by reading the file up to a line.


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> VocabularyError:
    message = str(error)
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = text.count("\n") + 1
    if place:
        message = message[: place.start()]
        line = int(place[1]) if place[1] else line
    twice = message.startswith(("Cannot", "Duplicate"))  # overwrite, declare twice, mutate
    hint = _GIVEN_ONCE if twice else _IN_QUOTES
    if message.startswith("Unclosed array"):
        hint = _CLOSED
        # The error is where the list does not go on; what has to be mended is more likely where it begins.
        begun = [_line_at(text, each.start()) for each in _LIST_BEGINS.finditer(text)]
        line = max((each for each in begun if each <= line), default=line)
    return VocabularyError(f"not TOML: {shortened(message)}", hint, path=path, line=line)


_GIVEN_ONCE = "A key is given once, and `classes` either as a list or as [[classes]]."
_IN_QUOTES = 'Texts stand in quotes, as in name = "tree".'
_CLOSED = 'Close the list that begins here with "]"; put a comma between its items, and each text into quotes.'

_LIST_BEGINS = re.compile(r"^[ \t]*[\w.\"'-]+[ \t]*=[ \t]*\[", re.MULTILINE)


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


#: Characters that are read at most in search of a line: some seconds.
_SEARCHED = 16_000_000


def _line_where(text: str, there: Callable[[Table], bool]) -> int | None:
    """The first line of the statement that makes `there` true of what has been read so far; None where that takes too long."""
    lines = text.split("\n")
    ends = list(accumulate(len(line) + 1 for line in lines))
    low, high = 0, len(lines)  # up to `low` lines it is not there, up to `high` it is
    left = _SEARCHED
    while True:
        # A statement of several lines cannot be read in parts, so the nearest whole part to the middle is taken.
        for count in _from_the_middle(low + 1, high):
            left -= ends[count - 1]
            if left < 0:
                return None
            table = _read_part(lines[:count])
            if table is not None:
                low, high = (low, count) if there(table) else (count, high)
                break
        else:
            break
    return low + 1  # blank lines and comments ahead can be read, so they are below `low`


def _from_the_middle(start: int, stop: int) -> Iterator[int]:
    """The numbers of a range, those in its middle first."""
    middle = (start - 1 + stop) // 2
    for distance in range(stop - start + 1):
        yield from (each for each in sorted({middle - distance, middle + distance}) if start <= each < stop)


def _read_part(lines: Sequence[str]) -> Table | None:
    text = "\n".join(lines)
    for end in ("", "\n]"):  # a list over several lines can be read up to any of its items
        try:
            return tomllib.loads(text + end)
        except tomllib.TOMLDecodeError:
            continue
    return None


def _line_of_class(text: str, index: int, key: str = "") -> int | None:
    """The line of class `index`, from 0, or of its key."""

    def there(table: Table) -> bool:
        classes = table.get("classes", [])
        if not isinstance(classes, list) or len(classes) <= index:
            return False
        return not key or not isinstance(classes[index], dict) or key in classes[index]

    return _line_where(text, there)


def _line_of_name(text: str, index: int) -> int:
    return [number for number, _ in content_lines(text)][index]
