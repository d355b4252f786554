"""Make the command of a verb: parameters from the options, and what the verb returns on stdout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tipsseg.ask import verb_of
from tipsseg.cli.parameters import add_command, is_given, parameter_of
from tipsseg.cli.stdin import read_only
from tipsseg.cli.wording import as_typed, open_progress, prints_paths
from tipsseg.errors import ImageError, UsageError
from tipsseg.options.fields import OTHER
from tipsseg.util.json import json_bytes
from tipsseg.util.text import Problem

if TYPE_CHECKING:
    from tipsseg.util.progress import Progress


def _switch(name: str, *flags: str, help: str, group: str = OTHER) -> inspect.Parameter:  # noqa: A002  typer's word
    info = typer.Option(*flags, rich_help_panel=group, help=help)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, info])


_QUIET = _switch("quiet", "--quiet", "-q", help="Do not print progress and notes.")
_NULL = _switch("null", "--null", "-0", help="End paths on stdout with NUL instead of a newline.")
_AS_JSON = {
    "json lines": _switch("jsonl", "--jsonl", help="Print one JSON object per image, instead of paths."),
    "json": _switch("as_json", "--json", help="Print the result as one JSON object."),
}


def command_of(function: Callable[..., Any]) -> typer.Typer:
    """Return the command of a verb. It prints what the verb returns; the exit code is 1 if there is a fault among that."""
    verb = verb_of(function)
    printing = [_QUIET, *([_NULL] if verb.prints & {"paths", "files"} else ())]
    printing += [parameter for what, parameter in _AS_JSON.items() if what in verb.prints]

    def run(
        context: typer.Context,
        quiet: bool,
        null: bool = False,
        jsonl: bool = False,
        as_json: bool = False,
        **values: Any,
    ) -> None:
        given = {key: value for key, value in values.items() if is_given(context, key)}
        if null and jsonl and str(given.get("only")) != "-":
            raise UsageError("-0 separates paths, but --jsonl prints no paths", "Remove -0.")
        prints = "paths" in verb.prints or ("files" in verb.prints and prints_paths(null))
        with open_progress(quiet, results=prints, null=null) as progress:
            if "only" in given:
                given["only"] = read_only(given["only"], null, verb.name, given["output"])
            if _print(function(**given, verbose=progress), progress, jsonl or as_json):
                raise typer.Exit(1)

    parameters = [parameter_of(key, each.about, each.kind, each.default) for key, each in verb.options.items()]
    target = typer.Typer(add_completion=False, rich_markup_mode=None)
    rare = {key for key, each in verb.options.items() if each.about.rare}
    summary = (function.__doc__ or "").partition("\n")[0]
    add_command(target, verb.name, run, [*parameters, *printing], rare, summary, verb.epilog, {})
    return target


def _print(result: Any, progress: Progress, as_json: bool) -> int:
    """Print what a verb returned, and return the number of faults."""
    if isinstance(result, int):
        return result
    if not isinstance(result, Iterator):
        progress.text(json_bytes(result.record()).decode() + "\n" if as_json else result.table())
        return result.failed
    faults = 0
    for each in result:
        if isinstance(each, ImageError):
            progress.error(each)
        elif isinstance(each, Problem):
            progress.text(f"{as_typed(str(each))}\n")
        elif as_json:
            progress.text(json_bytes(each.record()).decode() + "\n")
        else:
            progress.path(each.path)
        faults += isinstance(each, ImageError | Problem)
    return faults
