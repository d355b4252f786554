"""Turn option records into the parameters of a command.

A command is a function. For a parameter annotated with a record, typer gets one parameter per option, and the function gets the
record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from tipsseg.address import as_address
from tipsseg.cli.help import Command, completion_of, correction_formats, show_all
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.formats import DATASET_FORMATS, FORMATS
from tipsseg.options.fields import OTHER, Option, choices_of, options_of, text_of
from tipsseg.util.files import local_path

if TYPE_CHECKING:
    pass

#: The hint for an empty path.
EMPTY_PATH = "Is a shell variable unset? Write . (a dot) for the current folder."


class Only:
    """Take only these options of a record; the others keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class _Part:
    """An argument of the function, with the options and the parameters that it is made of."""

    name: str
    parameters: Sequence[inspect.Parameter]
    options: Mapping[str, Option]
    record: type | None

    def value(self, values: Mapping[str, Any]) -> Any:
        """Return the function's argument, made of the values that typer parsed."""
        if self.record is None:
            return values[self.name]
        given = {name: values[name] for name in self.options if values[name] is not None}
        for name, (_, option) in options_of(self.record).items():
            if option.commands_give is not None:
                given[name] = option.commands_give
        return self.record(**given)


def command(
    epilog: str = "",
    *,
    app: typer.Typer | None = None,
    defaults: Callable[[Mapping[str, Any]], Mapping[str, object]] | None = None,
    **settings: Any,
) -> Callable[[Callable[..., int | None]], typer.Typer]:
    """Return a decorator that makes a function a command. Its exit code is 1 if the function returns a number of failures.

    Args:
        epilog: The text at the end of the help.
        app: The app that gets the command. If None, an app of its own.
        defaults: A function that returns values for absent options. Its argument: all values.
        settings: More arguments for `typer.Typer.command`.
    """

    def add(function: Callable[..., int | None]) -> typer.Typer:
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters
        parts = [_part(parameter, hints[key]) for key, parameter in own.items()]

        def run(**values: Any) -> None:
            if defaults is not None:
                values |= defaults(values)
            if function(**{part.name: part.value(values) for part in parts}):
                raise typer.Exit(1)

        parameters = [each for part in parts for each in part.parameters if each.name != _CONTEXT.name]
        rare = {key for part in parts for key, option in part.options.items() if option.rare}
        target = app or typer.Typer(add_completion=False, rich_markup_mode=None)
        add_command(target, function.__name__, run, parameters, rare, function.__doc__, epilog, settings)
        return target

    return add


def add_command(
    app: typer.Typer,
    name: str,
    run: Callable[..., None],
    parameters: Sequence[inspect.Parameter],
    rare: Container[str],
    doc: str | None,
    epilog: str,
    settings: Mapping[str, Any],
) -> None:
    """Add a command to an app. Typer reads the signature and the annotations of `run`."""
    parameters = [_CONTEXT, *parameters]
    kept = frozenset() if len(parameters) < _MANY else frozenset(each.name for each in parameters if each.name in rare)
    parameters += [_HELP_ALL] * bool(kept)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = doc
    kind = type("Command", (Command,), {"rare": kept})
    app.command(name, cls=kind, epilog=epilog, **{"no_args_is_help": True, **settings})(run)


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


def _part(parameter: inspect.Parameter, hint: Any) -> _Part:
    name = parameter.name
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
    if is_dataclass(kind):
        assert isinstance(kind, type)
        hints, options, parameters = get_type_hints(kind), {}, []
        for key, (field, option) in options_of(kind).items():
            if option.commands_give is None and all(key in mark.names for mark in marks):
                default = inspect.Parameter.empty if field.default is MISSING else field.default
                options[key] = option
                parameters.append(parameter_of(key, option, hints[key], default))
        return _Part(name, parameters, options, kind)
    return _Part(name, [parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY)], {}, None)


def parameter_of(name: str, option: Option, kind: Any, default: Any, *, positional: bool = False) -> inspect.Parameter:
    plain = next(each for each in get_args(kind) if each is not NoneType) if NoneType in get_args(kind) else kind
    choices = option.choices or choices_of(kind)
    typed: Any = option.typed or (plain if plain in (bool, int, float, Path, list[str]) else str)
    if plain == tuple[str, ...]:
        typed = list[str]
    if typed is str and default not in (None, inspect.Parameter.empty):
        default = text_of(default)
    help_text = option.help.replace("{formats}", ", ".join(FORMATS)).replace("{datasets}", " or ".join(DATASET_FORMATS))
    if "{corrections}" in help_text:
        help_text = help_text.replace("{corrections}", ", ".join(correction_formats()))
    info = (typer.Argument if option.argument else partial(typer.Option, *option.flags(name)))(
        metavar=option.metavar or "|".join(choices) or None,
        parser=path_of("the folder" if option.argument else option.long(name), urls=name in ("images", "to"))
        if typed is Path
        else None,
        rich_help_panel=option.group,
        autocompletion=completion_of(choices) if choices else None,
        help=as_typed(help_text),
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
