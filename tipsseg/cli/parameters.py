"""Turn option records into the parameters of a command.

A command is a function. For a parameter annotated with a record, typer gets one parameter per option, and the function gets the
record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from tipsseg.address import as_address
from tipsseg.cli.help import Command, completion_of, correction_formats, show_all
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.formats import FORMATS
from tipsseg.options.fields import OTHER, Option, choices_of, options_of, text_of
from tipsseg.util.files import local_path

#: The hint for an empty path.
EMPTY_PATH = "Is a shell variable unset? Write . (a dot) for the current folder."


class Only:
    """Take only these options of a record; the others keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


class Without:
    """Take all options of a record except these."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class _Part:
    """The options behind one parameter of the function: all options of a record, or a single option."""

    name: str
    record: type | None
    parameters: tuple[inspect.Parameter, ...]
    options: Mapping[str, Option]

    def value(self, values: Mapping[str, Any]) -> Any:
        """Convert the values that typer parsed to the function's argument."""
        read = {
            name: option.read(value) if option.read is not None else value
            for name, option in self.options.items()
            if (value := values[name]) is not None
        }
        if self.record is None:
            return read.get(self.name, values[self.name])
        fixed = {
            name: option.commands_give
            for name, (_, option) in options_of(self.record).items()
            if option.commands_give is not None
        }
        return self.record(**read, **fixed)


def add_command(
    app: typer.Typer,
    epilog: str,
    *,
    name: str | None = None,
    defaults: Callable[[Mapping[str, Any], Callable[[str], bool]], Mapping[str, object]] | None = None,
    **settings: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a function to an app as a command.

    Args:
        app: The app that gets the command.
        epilog: The text at the end of the help.
        name: The command's name. If None, the function's name.
        defaults: A function that returns values for absent options. Its arguments are all values, and a function that returns
            True if an option is on the command line.
        settings: More arguments for `typer.Typer.command`.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters
        parts = [_part(parameter, hints[key]) for key, parameter in own.items()]

        def run(**values: Any) -> None:
            if defaults is not None:
                values |= defaults(values, lambda key: is_given(values["context"], key))
            function(**{part.name: part.value(values) for part in parts})

        parameters = [_CONTEXT, *(each for part in parts for each in part.parameters if each.name != _CONTEXT.name)]
        rare = {key for part in parts for key, option in part.options.items() if option.rare}
        if len(parameters) < _MANY:
            rare = set()
        if rare:
            parameters.append(_HELP_ALL)
        kind = type("Command", (Command,), {"rare": frozenset(rare)})
        # typer reads the signature and the annotations.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        app.command(name or function.__name__, cls=kind, epilog=epilog, **{"no_args_is_help": True, **settings})(run)
        return function

    return add


def is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_options(context: typer.Context, record: type) -> Iterator[str]:
    """Yield the flags of a record's options that are on the command line."""
    for name, (_, option) in options_of(record).items():
        if name in context.params and is_given(context, name):
            yield option.long(name)


def path_of(what: str) -> Callable[[str | Path], Path]:
    """Return a parser of local paths. It raises UsageError for URLs, and for "", which pathlib reads as the current folder."""
    return lambda value: local_path(what, _checked(what, value))


def address_of(what: str) -> Callable[[str | Path], Path]:
    """Return a parser of paths and URLs. It raises UsageError for ""."""
    return lambda value: as_address(_checked(what, value))


def _checked(what: str, value: str | Path) -> str | Path:
    if value == "":
        raise UsageError(f"the path of {what} is empty", EMPTY_PATH)
    return value


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
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
    if is_dataclass(kind):
        assert isinstance(kind, type)
        options = {key: option for key, (_, option) in options_of(kind).items() if _is_wanted(key, option, marks)}
        return _Part(parameter.name, kind, tuple(_of_field(kind, key) for key in options), options)
    option = next((mark for mark in marks if isinstance(mark, Option)), None)
    if option is None:
        return _Part(parameter.name, None, (parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY),), {})
    single = _parameter(parameter.name, option, kind, parameter.default)
    return _Part(parameter.name, None, (single,), {parameter.name: option})


def _is_wanted(name: str, option: Option, marks: list[object]) -> bool:
    if option.commands_give is not None:
        return False
    return all(name in mark.names for mark in marks if isinstance(mark, Only)) and not any(
        name in mark.names for mark in marks if isinstance(mark, Without)
    )


def _of_field(record: type, name: str) -> inspect.Parameter:
    field, option = options_of(record)[name]
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return _parameter(name, option, get_type_hints(record)[name], default)


def _parameter(name: str, option: Option, kind: Any, default: Any) -> inspect.Parameter:
    plain = next(each for each in get_args(kind) if each is not type(None)) if type(None) in get_args(kind) else kind
    choices = option.choices or choices_of(kind)
    typed: Any = plain if plain in (bool, int, float, Path, list[str]) else str
    if option.read is not None:
        typed = list[str]
        if default is not inspect.Parameter.empty:
            default = None  # the help text names the default
    elif typed is str and default not in (None, inspect.Parameter.empty):
        default = text_of(default)
    info = typer.Option(
        *option.flags(name),
        metavar=option.metavar or "|".join(choices) or None,
        parser=None if typed is not Path else (address_of if name == "images" else path_of)(option.long(name)),
        rich_help_panel=option.group,
        autocompletion=completion_of(choices) if choices else None,
        help=as_typed(_with_lists(option.help)),
        show_default=default is not None,
    )
    annotation = typed | None if default is None else typed
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )


def _with_lists(text: str) -> str:
    """Return a help text with the names of formats that it lists."""
    if "{corrections}" in text:
        text = text.replace("{corrections}", ", ".join(correction_formats()))
    return text.replace("{formats}", ", ".join(FORMATS))
