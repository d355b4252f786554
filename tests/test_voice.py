"""Hold the habits of the texts that a test can hold: docstrings do not begin with a question, messages say "is not a"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tipsseg

TOP = Path(tipsseg.__file__).parent

_QUESTION = re.compile(r"(What|Whether|How)\b")
_HABIT = re.compile(r"\b(is|are|was|were) no (?!longer\b|more than\b)|\bthere (is|are) (no|not)\b", re.IGNORECASE)

Text = tuple[str, str]


def read_texts(source: str, place: str) -> tuple[list[Text], list[Text]]:
    """Return the docstrings and the other string constants of a module, with their places."""
    docstrings: list[Text] = []
    constants: list[Text] = []
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
                docstrings.append((f"{place}:{node.body[0].lineno}", str(first.value.value).strip()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            constants.append((f"{place}:{node.lineno}", node.value))
    return docstrings, constants


def all_texts() -> Iterator[tuple[list[Text], list[Text]]]:
    for path in sorted(TOP.rglob("*.py")):
        yield read_texts(path.read_text("utf-8"), str(path.relative_to(TOP)))


DOCSTRINGS = [text for docstrings, _ in all_texts() for text in docstrings]
MESSAGES = [text for _, constants in all_texts() for text in constants]


def test_docstrings_do_not_begin_with_a_question() -> None:
    assert len(DOCSTRINGS) > 500
    assert [text for text in DOCSTRINGS if _QUESTION.match(text[1])] == []


def test_messages_say_is_not_a() -> None:
    assert len(MESSAGES) > 1000
    assert [text for text in MESSAGES if _HABIT.search(text[1])] == []
