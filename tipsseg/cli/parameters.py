"""Turn the options of a verb into the parameters of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tipsseg.address import as_address
from tipsseg.cli.groups import flags_of
from tipsseg.cli.help import Command, completion_of, show_all
from tipsseg.errors import UsageError, worded
from tipsseg.formats import FORMATS, correction_formats
from tipsseg.options.fields import OTHER, Declared, choices_of, text_of
from tipsseg.options.signature import combinations_of
from tipsseg.util.files import local_path

#: The hint for an empty path.
EMPTY_PATH = "Is a shell variable unset? Write . (a dot) for the current folder."


def add_command(
    app: typer.Typer,
    name: str,
    run: Callable[..., None],
    parameters: Sequence[inspect.Parameter],
    rare: Container[str],
    doc: str | None,
    epilog: str,
    *,
    no_args_is_help: bool,
) -> None:
    """Add a command to an app. Typer reads the signature and the annotations of `run`."""
    parameters = [_CONTEXT, *parameters]
    kept = frozenset() if len(parameters) < _MANY else frozenset(each.name for each in parameters if each.name in rare)
    parameters += [_HELP_ALL] * bool(kept)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = doc
    kind = type("Command", (Command,), {"rare": kept})
    app.command(name, cls=kind, epilog=epilog, no_args_is_help=no_args_is_help)(run)


def is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def path_of(what: str, *, urls: bool = False) -> Callable[[str | Path], Path]:
    """Return a parser of local paths, or of URLs too. It raises UsageError for "", which pathlib reads as the current folder."""

    def parse(value: str | Path) -> Path:
        if value == "":
            raise UsageError(f"the path of {what} is empty", EMPTY_PATH)
        return as_address(value) if urls else local_path(what, value)

    return parse


#: Commands with at least this many parameters omit rare options from --help.
_MANY = 18

_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all", is_eager=True, callback=show_all, rich_help_panel=OTHER, help="Show all options and exit."
        ),
    ],
)


def parameter_of(declared: Declared, options: Mapping[str, Declared]) -> inspect.Parameter:
    """Return the parameter of one of the options of a command, as typer reads it."""
    name_of = flags_of(options)
    name, option, kind, default = declared.name, declared.about, declared.kind, declared.default
    choices = option.choices or choices_of(kind)
    typed: Any = option.typed or (kind if kind in (bool, int, float, Path) else str)
    if typed is str and default not in (None, inspect.Parameter.empty):
        default = text_of(default)
    listed = correction_formats() if option.choices == "corrections" else FORMATS
    text, mark, shown = worded(option.told(", ".join(listed)), name_of).partition("  [default")
    combinations = worded(combinations_of(name, options), name_of)
    info = (typer.Argument if option.argument else partial(typer.Option, *option.flags(name)))(
        metavar=option.metavar or "|".join(choices) or None,
        parser=path_of("the folder" if option.argument else option.long(name), urls=name in ("images", "to"))
        if typed is Path
        else None,
        rich_help_panel=option.group,
        autocompletion=completion_of(choices) if choices else None,
        help=f"{text} {combinations}".rstrip() + mark + shown,
        show_default=default is not None,
    )
    if option.required:
        default = inspect.Parameter.empty
    if option.stdin == "paths":
        default = None  # an error of ours says more
    annotation = typed | None if default is None else typed
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )
