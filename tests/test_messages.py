"""Messages name options: Python's keywords in the library, flags on the command line."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from string import Formatter
from typing import get_args

import pytest

import tipsseg
from tipsseg.ask import verb_of
from tipsseg.cli.main import functions_of, listed_commands, print_error
from tipsseg.errors import UsageError, Words
from tipsseg.say import DETAILS, NOTES
from tipsseg.types import Remark

TOP = Path(tipsseg.__file__).parent

#: An option of a command line.
_OPTION = re.compile(r"(?<![\w-])--[a-z]|(?<![\w-])-o\b")

#: A command line in a sentence, up to the end of the part of the sentence.
_COMMAND_LINE = re.compile(r"\btipsseg [a-z]+ [^.,;`]*")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The string constants of a module with their lines; {} stands for what an f-string takes in.

    `RunSpec.question` writes command lines, and is left out, as is what verbs say in the help of commands.
    """
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.keyword) and node.arg in ("help", "json", "jsonl"):
            continue
        if isinstance(node, ast.FunctionDef) and any("verb(" in ast.unparse(each) for each in node.decorator_list):
            nodes += node.body[1:]  # without the docstring, whose first line is the summary of the command
            continue
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EPILOG":
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
            nodes += [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif not isinstance(node, ast.FunctionDef) or node.name not in (
            "command_with_output",
            "question",
            "_question",
            "_commands_to_paste",
        ):
            nodes += ast.iter_child_nodes(node)


#: The texts of the library, each with its place.
LIBRARY = [
    (f"{path.relative_to(TOP)}:{line}", text)
    for path in sorted(TOP.rglob("*.py"))
    if path.relative_to(TOP).parts[0] != "cli" and path.name not in ("ask.py", "fields.py")  # which make flags
    for line, text in texts(path.read_text(encoding="utf-8"))
]


def options_in(text: str) -> list[str]:
    return _OPTION.findall(_COMMAND_LINE.sub("", text))


def test_the_library_names_no_options() -> None:
    assert [(place, text) for place, text in LIBRARY if options_in(text)] == []


def _templates() -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of `Words` in the library, each with its place."""
    for path in sorted(TOP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Words":
                yield f"{path.relative_to(TOP)}:{node.lineno}", node


def _options() -> set[str]:
    """Return the names of all options, and of parameters of functions that are no commands."""
    there = {"first_id", "guide", "image_id"}
    for name in listed_commands():
        there |= {option for each in functions_of(name) for option in verb_of(each).options}
    return there


def _fields(template: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(template) if field is not None}


def test_every_note_gets_the_values_of_its_sentence() -> None:
    options = _options()
    for package in iter_modules([str(TOP / "plugins")], "tipsseg.plugins."):  # each has notes of its own
        import_module(package.name)
    table, noted = {**NOTES, **DETAILS}, set[str]()
    for path in sorted(TOP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            reason = node.args[0]
            is_note = node.func.attr in ("note", "begin", "still") and "progress" in ast.unparse(node.func.value)
            if is_note and isinstance(reason, ast.Constant):
                values = {keyword.arg or "" for keyword in node.keywords}
                place, fields = f"{path.relative_to(TOP)}:{node.lineno}", _fields(table[str(reason.value)])
                assert values <= fields, place
                assert fields - values <= options, place
                noted.add(str(reason.value))
    assert len(noted) > 100
    assert table.keys() - noted == {
        *get_args(Remark),
        "audit.absent",
        "audit.absent_in_file",
        "labels_removed",
        "none_removed",
        "geo.in_pixels",
    }  # chosen by a value


def test_messages_name_options_that_there_are() -> None:
    there, named = _options(), set[str]()
    for place, call in _templates():
        template, values = call.args[0], {keyword.arg for keyword in call.keywords}
        if isinstance(template, ast.Constant):
            fields = _fields(str(template.value))
            assert values <= fields, f"{place}: a value without a placeholder"
            named |= fields - values
    assert len(named) > 40
    assert named <= there


def test_the_command_prints_flags_where_the_library_has_keywords(capsys: pytest.CaptureFixture[str]) -> None:
    text = Words("with {accept} and {min_area}={value}", value="{model}")
    assert text == "with `accept` and `min_area`={model}"
    print_error(pickle.loads(pickle.dumps(UsageError("so: " + text, text))))
    flags = "with --accept and --min-area={model}"
    assert capsys.readouterr().err == f"Error: so: {flags}\nHint: {flags}\n"
