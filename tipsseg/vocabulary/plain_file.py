"""Read vocabularies from plain text files, with one class per line and comments."""

from __future__ import annotations

import re
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.vocabulary.texts import content_lines, locate_errors
from tipsseg.vocabulary.vocabulary import ClassSpec, check_phrase_count


def parse_lines(path: Path, text: str) -> tuple[ClassSpec, ...]:
    """Parse text with one class per line; `path` names the file in errors.

    Raises VocabularyError with the line number if the text looks like another format.
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
    for number, line in lines:
        if _SEPARATOR.search(line):
            raise VocabularyError(
                "a comma between two names, in a file with one class per line",
                "Write one class per line. If a class name contains a comma, use a .toml file.",
                path=path,
                line=number,
            )
    return tuple(ClassSpec(line) for _, line in lines)


def line_of_class(text: str, index: int) -> int:
    """Return the line number, from 1, of class `index`, from 0."""
    return [number for number, _ in content_lines(text)][index]


_OTHER_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".xml")

_NUMBERS = "Remove the numbers. Ids follow the order of the lines, from 1."

# Patterns for lines in other formats, with fault and hint. TOML comes first: its lists also have commas at line ends.
_FAULTS = (
    (r"^\[\[classes\]\]$|^classes\s*=\s*\[", "this looks like TOML", "Rename the file to end in .toml."),
    (r",$", "a comma at the end of the line", "Write one class per line, without commas."),
    (r"\t", "a tab in the line", "Remove columns of numbers. Ids follow the order of the lines."),
    (r"^-\s|^\w+:$", "this looks like YAML", "Write one class per line, and nothing else."),
    (r"^\d+\s*[:=]|^\d+[.)]\s", "a number before the name", _NUMBERS),
)

#: A comma that separates names. In "salt, pepper" it may be part of a name.
_SEPARATOR = re.compile(r"[^\s,\d],[^\s,]")
