"""Vocabularies as plain text files: one class a line, and comments."""

from __future__ import annotations

import re
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.vocabulary.texts import content_lines, in_place
from tipsseg.vocabulary.vocabulary import ClassSpec, check_number


def parse_lines(path: Path, text: str) -> tuple[ClassSpec, ...]:
    """Read the text of a file with one class a line; `path` names the file in errors.

    Raises VocabularyError for a file of another kind, and for lines that look like another format, with the line.
    """
    if path.suffix.lower() in _OTHER_KINDS:
        raise VocabularyError(
            f"a {path.suffix} file, where TOML or one class a line is understood",
            "Write one class a line into a .txt file, or see `tipsseg vocab show voc20` for TOML.",
            path=path,
        )
    lines = list(content_lines(text))
    with in_place(path):
        check_number(len(lines))
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
    return tuple(ClassSpec(line) for _, line in lines)


def line_of_class(text: str, index: int) -> int:
    """Return the line, from 1, of class `index`, from 0."""
    return [number for number, _ in content_lines(text)][index]


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
