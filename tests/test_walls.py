"""The core does not know its plugins, and does not grow: imports are checked by `lint-imports`, the rest here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import tipsseg

TOP = Path(tipsseg.__file__).parent
PLUGINS = TOP / "plugins"

#: The lists of names for users, which name everything.
LISTS = {"__init__.py", "learn.py", "review.py"}

CORE = [
    path
    for path in sorted(TOP.rglob("*.py"))
    if PLUGINS not in path.parents and path.relative_to(TOP).as_posix() not in LISTS
]

#: The modules of the core, and their lines of code without docstrings, comments and blank lines. Whoever raises a number says why
#: in the commit.
MODULES, LINES = 188, 24_749


def count_lines(path: Path) -> int:
    """Count the lines with code."""
    text = path.read_text("utf-8")
    docstrings = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = (line for number, line in enumerate(text.splitlines(), start=1) if number not in docstrings)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def test_the_core_does_not_grow() -> None:
    assert len(CORE) <= MODULES
    assert sum(map(count_lines, CORE)) <= LINES


def test_the_core_names_no_plugin() -> None:
    """Not even in strings, which no import contract sees."""
    names = "|".join(path.name for path in PLUGINS.iterdir() if path.is_dir() and path.name.isidentifier())
    pattern = re.compile(rf"\bplugins[./]({names})\b")
    assert [path for path in CORE if pattern.search(path.read_text("utf-8"))] == []
