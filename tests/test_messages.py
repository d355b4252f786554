"""Texts of the library name arguments; the command prints the options that give these arguments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

import tipsseg
from tipsseg.cli import wording
from tipsseg.cli.main import _VERBS
from tipsseg.cli.verbs import commands_of
from tipsseg.cli.wording import LIBRARY_ONLY, as_typed
from tipsseg.commands.doctor import examine
from tipsseg.integrations.label_studio import serve
from tipsseg.options.records import FileOptions, LabelOptions
from tipsseg.run.spec import RunSpec
from tipsseg.verbs.audit import audit
from tipsseg.verbs.convert import convert
from tipsseg.verbs.correct import correct
from tipsseg.verbs.merge import merge_folders
from tipsseg.verbs.report import report_folder

TOP = Path(tipsseg.__file__).parent

#: An option of a command line.
_OPTION = re.compile(r"(?<![\w-])--[a-z]|(?<![\w-])-o\b")

#: A command line in a sentence, up to the end of the part of the sentence.
_COMMAND_LINE = re.compile(r"\btipsseg [a-z]+ [^.,;`]*")

_ARGUMENT = re.compile(r"[Aa]rgument `([^`]*)`(=False\b)?")

#: What a program calls to do the same as a command.
_API: tuple[Callable[..., Any], ...] = (
    FileOptions,
    LabelOptions,
    RunSpec,
    audit,
    convert,
    correct,
    examine,
    report_folder,
    merge_folders,
    tipsseg.Labeller.label,
    tipsseg.encode_folder,
    tipsseg.LabelMap.to_coco,
    tipsseg.review.correct_folder,
    tipsseg.learn.fit_folder,
    tipsseg.label_folder,
    tipsseg.make_vocabulary,
    tipsseg.write_dataset,
    serve,
    tipsseg.review.rank,
    tipsseg.review.score_masks,
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The string constants of a module with their lines; {} stands for what an f-string takes in.

    `RunSpec.command` and `RunSpec.question` write command lines, and are left out, as is what verbs say in the help of commands.
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
            "command",
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
    if path.relative_to(TOP).parts[0] != "cli" and path != TOP / "options/fields.py"  # which makes the flags
    for line, text in texts(path.read_text(encoding="utf-8"))
]


def options_in(text: str) -> list[str]:
    return _OPTION.findall(_COMMAND_LINE.sub("", text))


def test_the_library_names_no_options() -> None:
    assert [(place, text) for place, text in LIBRARY if options_in(text)] == []


def test_the_library_names_arguments_that_there_are() -> None:
    there = {name for call in _API for name in inspect.signature(call).parameters}
    unknown = [
        (place, found[0])
        for place, text in LIBRARY
        for found in _ARGUMENT.finditer(text)
        if found[1] not in {*there, "{}"}
    ]
    assert unknown == []


def test_a_command_has_the_option_of_every_argument_that_the_library_names() -> None:
    there = set()
    for name, functions in _VERBS.items():
        module = import_module(f"tipsseg.verbs.{name}")
        command = typer.main.get_command(commands_of("", *(getattr(module, each) for each in functions)))
        for each in getattr(command, "commands", {name: command}).values():
            there |= {option for param in each.params for option in (*param.opts, *param.secondary_opts)}
    named = {
        found[0] for _, text in LIBRARY for found in _ARGUMENT.finditer(text) if found[1] not in {*LIBRARY_ONLY, "{}"}
    }
    assert len(named) > 40
    assert {text for text in named if as_typed(text) not in there} == set()


@pytest.mark.parametrize(
    ("text", "typed"),
    {
        "name": ("Allow it with argument `max_pixels`.", "Allow it with --max-pixels."),
        "value": ("argument `max_pixels`=0 is too small", "--max-pixels 0 is too small"),
        "short option": ("with argument `output`, or", "with -o, or"),
        "False": ("argument `exact` and argument `emptied`=False", "--exact and --no-emptied"),
        "of the library alone": ("argument `guide`=red", "argument `guide`=red"),
    }.values(),
)
def test_arguments_become_options_in_messages(text: str, typed: str) -> None:
    assert as_typed(text) == typed


def test_every_command_prints_options() -> None:
    """Every `Progress` of a command gets the wording that names options."""
    calls = {
        f"{path.name}:{node.lineno}": {keyword.arg for keyword in node.keywords}
        for path in Path(wording.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Progress"
    }
    assert calls
    assert {place for place, keywords in calls.items() if "wording" not in keywords} == set()
