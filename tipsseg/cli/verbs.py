"""Make the commands of verbs: parameters from the options, and what a verb returns on stdout."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from tipsseg.ask import Verb, verb_of
from tipsseg.cli import stdin
from tipsseg.cli.groups import FLAGS, Group, flags_of
from tipsseg.cli.parameters import add_command, is_given, parameter_of
from tipsseg.cli.values import refuse_split_lists, typed_classes
from tipsseg.errors import ImageError, TipssegError, UsageError
from tipsseg.folder.outcome import FolderImage
from tipsseg.options.fields import OTHER
from tipsseg.say import Progress
from tipsseg.util.json import json_bytes
from tipsseg.util.text import Diagnostic, Problem, printable

#: The switches of printing that have another name in Python.
_FLAGS = {"as_json": "--json", "null": "--null/-0", "quiet": "--quiet/-q", "detailed": "--verbose/-v"}


def commands_of(summary: str, *functions: Callable[..., Any]) -> typer.Typer:
    """Return the command of a verb, or a group with the commands of several verbs."""
    app = typer.Typer(cls=Group, help=summary, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    for function in functions:
        _add_command(app, function)
    return app


def _add_command(app: typer.Typer, function: Callable[..., Any]) -> None:
    """Add the command of a verb. It prints what the verb returns; the exit code is 1 if there is a fault among that."""
    verb, own = verb_of(function), inspect.signature(function).parameters
    options = {key: each for key, each in verb.options.items() if each.about.role != "library"}
    fixed = dict.fromkeys(verb.options.keys() - options.keys(), True)
    name_of = flags_of(verb.options)
    switches = _switches(verb, prints_notes="verbose" in own)

    def run(context: typer.Context, **values: Any) -> None:
        printing = {each.name: values.pop(each.name) for each in switches}
        null, jsonl, as_json = (printing.get(each, False) for each in ("null", "jsonl", "as_json"))
        given = {key: value for key, value in values.items() if is_given(context, key)}
        given = {**{key: [] for key, each in options.items() if each.about.stdin == "paths"}, **given}
        _refuse_mistakes(verb, given, null=null, jsonl=jsonl)
        paths = not jsonl and (verb.prints == "paths" or (verb.prints == "files" and (null or not sys.stdout.isatty())))
        quiet, detailed = printing.get("quiet", False), printing.get("detailed", False)
        from tipsseg.images.decoders import silence_decoders  # imports OpenCV and Pillow

        silence_decoders()
        context.meta[FLAGS] = name_of
        with Progress(quiet, results=paths, null=null, jsonl=jsonl, detailed=detailed, name_of=name_of) as progress:
            given = {key: _value_of(verb, key, value, null, given) for key, value in given.items()}
            more = {"verbose": progress} if "verbose" in own else {}
            try:
                result = function(**given, **fixed, **more)
            except TipssegError as error:
                if error.result is not None:
                    _print(error.result, progress, as_json=as_json, jsonl=jsonl)
                raise
            if _print(result, progress, as_json=as_json, jsonl=jsonl):
                raise typer.Exit(1)

    parameters = [parameter_of(each, options) for each in options.values()]
    required = any(each.about.required or each.default is inspect.Parameter.empty for each in options.values())
    shows_help = required and " " not in verb.name
    rare = {*(key for key, each in options.items() if each.about.rare), *(["null"] if _reads_list(verb) else [])}
    summary = (function.__doc__ or "").partition("\n")[0]
    name = verb.name.split()[-1]
    add_command(app, name, run, [*parameters, *switches], rare, summary, verb.epilog, no_args_is_help=shows_help)


def _reads_list(verb: Verb) -> bool:
    return any(each.about.stdin for each in verb.options.values())


def _switches(verb: Verb, *, prints_notes: bool) -> list[inspect.Parameter]:
    """Return the parameters that change what a command prints."""
    separates = "Separate paths with NUL instead of newlines, on stdin and stdout."
    if not verb.prints:
        separates = "Separate the list on stdin with NUL instead of newlines."
    elif not _reads_list(verb):
        separates = "End paths on stdout with NUL instead of a newline."
    texts = {
        "as_json": verb.json,
        "jsonl": verb.jsonl,
        "null": separates if verb.prints or _reads_list(verb) else "",
        "quiet": "Do not print progress and notes." if prints_notes else "",
        "detailed": "Print details too." if verb.name == "label" else "",
    }
    found = []
    for name, text in texts.items():
        if text:
            info = typer.Option(*_FLAGS.get(name, f"--{name}").split("/"), rich_help_panel=OTHER, help=text)
            kind = inspect.Parameter.KEYWORD_ONLY
            found.append(inspect.Parameter(name, kind, default=False, annotation=Annotated[bool, info]))
    return found


def _refuse_mistakes(verb: Verb, given: Mapping[str, Any], *, null: bool, jsonl: bool) -> None:
    """Raise UsageError for words that the shell split, and for options that print different things to stdout."""
    words = [word for key, value in given.items() if verb.options[key].about.argument for word in _listed(value)]
    refuse_split_lists(words, given.get("classes"), given.get("formats"))
    reads = any(value in ("-", ["-"], Path("-")) for key, value in given.items() if verb.options[key].about.stdin)
    if null and not reads and not verb.prints:
        raise UsageError("-0 is for a list on stdin", "Write - in place of the folder.")
    if null and not reads and jsonl:
        raise UsageError("-0 separates paths, but --jsonl prints no paths", "Remove -0.")


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _value_of(verb: Verb, key: str, value: Any, null: bool, given: Mapping[str, Any]) -> Any:
    """Return the value of an option from the words on the command line. Read lists on stdin, and the list of --only."""
    if key == "classes":
        return typed_classes(value)
    match verb.options[key].about.stdin:
        case "paths":
            return stdin.images(value, null)
        case "path":
            return stdin.images([value], null) if value == "-" else value
        case "list":
            return stdin.read_only(value, null, verb.name, Path(_listed(next(iter(given.values())))[0]))
    return value


def _print(result: Any, progress: Progress, *, as_json: bool, jsonl: bool) -> int:
    """Print what a verb returned, and return the number of faults."""
    if isinstance(result, int | None):
        return result or 0
    if isinstance(result, Generator):
        with closing(result):
            return _print_each(result, progress, jsonl=jsonl)
    if as_json:
        progress.text(json_bytes(result.record()).decode() + "\n")
    elif jsonl:
        for record in result.records():
            progress.text(json_bytes(record).decode() + "\n")
    elif hasattr(result, "table"):
        progress.text(result.table())
    if total := getattr(result, "total", ""):
        progress.say(total)
    return int(result.failed)


def _print_each(results: Generator[Any, None, int | None], progress: Progress, *, jsonl: bool) -> int:
    """Print results, and return the number of faults: what the generator returns, or those among the results."""
    faults = 0
    try:
        while True:
            faults += _print_one(next(results), progress, jsonl=jsonl)
    except StopIteration as end:
        return faults if end.value is None else int(end.value)


def _print_one(each: Any, progress: Progress, *, jsonl: bool) -> bool:
    """Print one of several results, and return True if it is a fault."""
    if isinstance(each, FolderImage):  # the verb has printed the files of the image
        return each.status == "failed"
    if isinstance(each, ImageError):
        progress.error(each)
    elif isinstance(each, Problem | Diagnostic):
        progress.text("\n".join(printable(progress.worded(line)) for line in each.lines()) + "\n")
    elif jsonl:
        progress.text(json_bytes(each.record()).decode() + "\n")
    else:
        progress.path(each.path)
    return isinstance(each, ImageError | Problem) or (isinstance(each, Diagnostic) and each.state == "fail")
