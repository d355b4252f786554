"""Read vocabularies: presets, plain text files with a class per line, and TOML files, which are written too.

In a text file, a slash separates a whole from its part, as in "panda/hind leg". A TOML file names the whole:

    background = "auto"                     # auto, none, or a list of phrases
    templates = "protocol"                  # protocol, plain, or a list of sentences with {}

    [[classes]]
    name = "panda leg"
    synonyms = ["paw"]
    colour = "#e63946"                      # or [230, 57, 70]
    min_confidence = 0.5
    supercategory = "panda"
    templates = ["a photo of a {}."]
    part_of = "panda"
    phrase = "leg of a panda"               # encoded in place of the name
    thing = true                            # a countable thing, in panoptic files; false for stuff

    [[classes]]
    name = "bamboo"
    negative = true                         # competes, but is written as 0

A class needs only `name`. One with only a name may be a string: classes = ["panda leg", "tree"].
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tipsseg.errors import VocabularyError
from tipsseg.util.files import path_exists
from tipsseg.util.text import did_you_mean, quote, shorten
from tipsseg.vocabulary.fitted import is_fit
from tipsseg.vocabulary.phrases import PROTOCOL_TEMPLATES, TEMPLATES, content_lines, locate_errors, read_text
from tipsseg.vocabulary.vocabulary import (
    ClassSpec,
    Vocabulary,
    check_phrase_count,
    class_record,
    make_vocabulary,
    parse_class,
    parse_name,
    require_known,
    resolve_templates,
)


def parse_lines(path: Path, text: str) -> tuple[ClassSpec, ...]:
    """Parse text with one class per line; `path` names the file in errors.

    Raise VocabularyError with the line number if the text looks like another format.
    """
    if path.suffix.lower() in _OTHER_SUFFIXES:
        raise VocabularyError(
            f"unsupported file type {path.suffix}",
            "Write one class per line into a .txt file, or a .toml file: see `tipsseg vocab show voc20`.",
            path=path,
        )
    lines = list(content_lines(text))
    with locate_errors(path):
        check_phrase_count(len(lines))
    for pattern, fault, hint in _FAULTS:
        for number, line in lines:
            if re.search(pattern, line):
                raise VocabularyError(f"{fault}, in a file with one class per line", hint, path=path, line=number)
    if len(lines) == 1 and "," in lines[0][1]:
        raise VocabularyError(
            "the only line contains commas, but each line is one class",
            "Write one class per line.",
            path=path,
            line=lines[0][0],
        )
    specs = []
    for number, line in lines:
        with locate_errors(path, number):
            specs.append(parse_name(line))
    return tuple(specs)


_OTHER_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".xml")

# Patterns for lines in other formats, with fault and hint. TOML comes first: its lists also have commas at line ends.
_FAULTS = (
    (r"^\[\[classes\]\]$|^classes\s*=\s*\[", "this looks like TOML", "Rename the file to end in .toml."),
    (r",$", "a comma at the end of the line", "Write one class per line, without commas."),
    (r"\t", "a tab in the line", "Remove columns of numbers. Ids follow the order of the lines."),
    (r"^-\s|^\w+:$", "this looks like YAML", "Write one class per line, and nothing else."),
    (
        r"^\d+\s*[:=]|^\d+[.)]\s",
        "a number before the name",
        "Remove the numbers. Ids follow the order of the lines, from 1.",
    ),
    # In "salt, pepper" the comma may be part of a name.
    (
        r"[^\s,\d],[^\s,]",
        "a comma between two names",
        "Write one class per line. If a class name contains a comma, use a .toml file.",
    ),
)

_KEYS = ("classes", "background", "templates")


def parse_toml(path: Path, text: str) -> tuple[tuple[ClassSpec, ...], Any, Any]:
    """Return the classes, the background and the templates of a TOML file; `path` names the file in errors.

    Raise VocabularyError for invalid TOML, and with the class for an unknown key. `make_vocabulary` checks the values.
    """
    # The memory that tomllib needs grows with the square of the number of parts in a key.
    start = _find_long_key(text)
    if start is not None:
        reason = f"a key has more than {_MAX_PARTS} parts"
        raise VocabularyError(reason, "Dotted keys are not allowed.", path=path, line=text.count("\n", 0, start) + 1)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        hint = 'Put texts in quotes, as in name = "tree"; end lists with "]"; set every key once.'
        raise VocabularyError(f"not TOML: {shorten(str(error))}", hint, path=path) from error
    with locate_errors(path):
        require_known(table, _KEYS)
        classes = table.get("classes", [])
        if not isinstance(classes, list):
            raise VocabularyError("`classes` must be a list", 'For example: classes = ["panda leg", "tree"]')
        check_phrase_count(len(classes))
        specs = []
        for index, value in enumerate(classes):
            with locate_errors(class_index=index):
                specs.append(parse_class(value))
        return tuple(specs), table.get("background"), resolve_templates(table)


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


def _toml(value: object) -> str:
    # JSON strings, numbers, booleans and lists are valid TOML, except for one character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


_FOLDER = resources.files("tipsseg") / "assets" / "vocabularies"


def preset_names() -> tuple[str, ...]:
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    )


def preset_summary(name: str) -> str:
    """Return a one-line description of a preset: the first comment of its file."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()


def read_vocabulary(
    source: str | Path,
    background: str | Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Vocabulary:
    """Read a vocabulary from a preset or a file.

    Args:
        source: A preset name, or a path. For a file that has the name of a preset, pass "./ade20k". Files that end in .toml are
            TOML; all others have one class per line.
        background: Replaces the background in the file; see `make_vocabulary`.
        templates: Replaces the templates in the file, but not the templates of individual classes (see `make_vocabulary`).

    Returns:
        The vocabulary. Its `source` is the name of the preset or file.

    Raises:
        VocabularyError: The file is not a valid vocabulary. The error states the path, and the line or class if known.
    """
    if not isinstance(source, str | Path):
        raise VocabularyError(f"a vocabulary must be a preset name or a path, not {quote(source)}")
    path = _locate(source)
    if is_fit(path):
        raise VocabularyError(
            "a fitted vocabulary, not a vocabulary file", "Read it with FittedVocabulary.load.", path=path
        )
    toml = path.suffix.lower() == ".toml"
    text = read_text(path, "a vocabulary file")
    specs, own_background, own_templates = parse_toml(path, text) if toml else (parse_lines(path, text), None, None)
    if all(spec.negative for spec in specs):
        hint = 'Add [[classes]] with a name, or a list: classes = ["panda leg", "tree"]'
        raise VocabularyError("the file has no classes to label", hint if toml else "Write one per line.", path=path)
    if background is None:
        background = "auto" if own_background is None else own_background
    if templates is None:
        templates = PROTOCOL_TEMPLATES if own_templates is None else own_templates
    preset = source in preset_names()
    try:
        return make_vocabulary(specs, background, templates, path.stem if preset else path.name)
    except VocabularyError as error:
        index = error.class_index
        # A whole that the file does not list is after its last line.
        lines = [] if toml or index is None else [number for number, _ in content_lines(text)][index : index + 1]
        raise VocabularyError(
            error.reason,
            error.hint,
            path=Path(source) if preset else path,
            line=lines[0] if lines else None,
            class_index=index if toml or lines else None,
        ) from None


def _locate(source: str | Path) -> Path:
    presets = preset_names()
    if isinstance(source, str) and source in presets:
        return Path(str(_FOLDER / f"{source}.toml"))
    path = Path(source)
    if not str(source) or not path_exists(path):
        guess = did_you_mean(str(source), presets) or "Check the path. "
        raise VocabularyError(
            f"the vocabulary {quote(str(source))} is neither a file nor a preset",
            f"{guess}The presets are: {', '.join(presets)}.",
        )
    return path
