"""The core does not know its plugins, and does not grow: imports are checked by `lint-imports`, the rest here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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
MODULES, LINES = 177, 24_175


#: What only a plugin speaks of; the options of plugins stand in options/ and verbs/.
WORDS = {
    "geo": r"raster|geo_?tiff|geo_?json|gpkg|epsg|georeferenced",
    "datasets": r"parquet|webdataset|pyarrow",
    "cloud": r"fsspec|s3fs|boto|\bray\b",
    "serve": r"http\.server|label_studio_sdk|cvat_sdk",
}


def code_of(path: Path) -> list[str]:
    """The lines of a module with code: without docstrings, comments and blank lines."""
    text = path.read_text("utf-8")
    docstrings = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line for number, line in enumerate(text.splitlines(), start=1) if number not in docstrings]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_the_core_does_not_grow() -> None:
    assert len(CORE) <= MODULES
    assert sum(len(code_of(path)) for path in CORE) <= LINES


def test_the_core_names_no_plugin() -> None:
    """Not even in strings, which no import contract sees."""
    names = "|".join(path.name for path in PLUGINS.iterdir() if path.is_dir() and path.name.isidentifier())
    pattern = re.compile(rf"\bplugins[./]({names})\b")
    assert [path for path in CORE if pattern.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("plugin", WORDS)
def test_the_core_has_no_word_of_a_plugin(plugin: str) -> None:
    pattern, declared = re.compile(WORDS[plugin], re.IGNORECASE), {TOP / "options", TOP / "verbs"}
    code = [(path, line) for path in CORE if path.parent not in declared for line in code_of(path)]
    assert [(path.name, line) for path, line in code if pattern.search(line.partition("  # ")[0])] == []
