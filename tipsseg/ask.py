"""Make a verb of a function: the signature is the command line, the library's keywords, and what a folder records.

The first parameter of a verb is `ask`, which callers do not see. The type of each option is declared once, with `Annotated`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from tipsseg.address import address_text, as_address, has_scheme, without_secrets
from tipsseg.options import check_value
from tipsseg.options.fields import Option, text_of
from tipsseg.util.text import shell_line

if TYPE_CHECKING:
    from tipsseg.run.repeat import RepeatedRun

#: The declaration of an option.
Opt = Option

#: The paths that a command prints on stdout (see `Verb`).
Prints = Literal["", "paths", "files"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A parameter of a verb.

    Attributes:
        name: The keyword.
        kind: The type, without None.
        optional: True if None is a value.
        default: The default; `inspect.Parameter.empty` if the parameter is required.
        about: What users read about it, and what it changes.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    about: Opt

    def take(self, value: object) -> object:
        """Return the one value that a given value means. Raise UsageError if it means none."""
        if value is None and (self.optional or self.default is None):
            return None
        return check_value(f"argument `{self.name}`", value, self.kind, self.about)

    def words(self, value: object) -> list[str]:
        """Return the words of a value on the command line."""
        flag = self.about.long(self.name)
        if self.about.commands_give is not None:
            return []
        if self.about.argument:
            return [text_of(value)]
        if isinstance(value, bool):
            return [flag] if value else [f"--no-{flag[2:]}"] * self.about.negatable
        return [f"{flag}={text_of(value)}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked of a verb.

    Attributes:
        name: The name of the command.
        options: The parameters of the verb, by name.
        values: Their values, each in its one form.
        given: The names of the parameters that the caller gave.
        repeated: The run whose values apply where the caller gave none; None without `from_run`.
    """

    name: str
    options: Mapping[str, Declared]
    values: Mapping[str, Any]
    given: frozenset[str]
    repeated: RepeatedRun | None = None

    def some(self, names: Collection[str]) -> dict[str, Any]:
        """Return the values of the parameters with these names, to hand on."""
        return {name: self.values[name] for name in names}

    def command(self, *, anywhere: bool = False, without: Collection[str] = ()) -> str:
        """Return the command line of what was given. Secrets in addresses are left out.

        Args:
            anywhere: Make paths absolute.
            without: The names of parameters to leave out.
        """
        words = ["tipsseg", self.name]
        for name, option in self.options.items():
            if name in without:
                continue
            value = self.values[name]
            if isinstance(value, Path):
                place = as_address(value)
                value = without_secrets(address_text(place.absolute() if anywhere and not has_scheme(place) else place))
            words += option.words(value) if name in self.given and value is not None else []
        return shell_line(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """What a command is, beside the parameters of its function.

    Attributes:
        name: The name of the command.
        epilog: The text at the end of the help.
        prints: The paths that go to stdout: of images, or of written files where stdout is no terminal.
        jsonl: The help of --jsonl; "" if the command has no such option.
        json: The help of --json; "" if the command has no such option.
        options: The parameters of the function, by name.
    """

    name: str
    epilog: str
    prints: Prints
    jsonl: str
    json: str
    options: Mapping[str, Declared]


#: The verbs, by the function that callers see.
_VERBS = dict[Callable[..., Any], Verb]()


def verb(
    name: str, epilog: str = "", *, prints: Prints = "", jsonl: str = "", json: str = ""
) -> Callable[[Callable[Concatenate[Ask, _P], _R]], Callable[_P, _R]]:
    """Return a decorator that makes a function the verb of a command.

    The decorated function has no `ask`. It takes and checks its values when it is called, also where it returns a generator. The
    other parameters: see `Verb`.
    """

    def decorate(function: Callable[Concatenate[Ask, _P], _R]) -> Callable[_P, _R]:
        own = inspect.signature(function)
        public = own.replace(parameters=[*own.parameters.values()][1:])
        options = _options_of(function, public)

        @wraps(function)
        def call(*args: _P.args, **keywords: _P.kwargs) -> _R:
            for key in keywords.keys() - public.parameters.keys():
                close = get_close_matches(key, public.parameters, 1)
                hint = f". Did you mean {close[0]!r}?" if close else ""
                raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {key!r}{hint}")
            bound = public.bind(*args, **keywords)
            given = frozenset(bound.arguments)
            bound.apply_defaults()
            repeated = None
            if (path := bound.arguments.get("from_run")) is not None:
                from tipsseg.run.repeat import read_run_file

                repeated = read_run_file(Path(path))
                bound.arguments |= repeated.options(given)
            for key, option in options.items():
                bound.arguments[key] = option.take(bound.arguments[key])
            ask = Ask(name=name, options=options, values=dict(bound.arguments), given=given, repeated=repeated)
            return function(ask, *bound.args, **bound.kwargs)

        call.__signature__ = public  # type: ignore[attr-defined]  # for help(), notebooks and editors
        call.__doc__ = _with_options(function.__doc__ or "", options)
        _VERBS[call] = Verb(name=name, epilog=epilog, prints=prints, jsonl=jsonl, json=json, options=options)
        return call

    return decorate


def verb_of(function: Callable[..., Any]) -> Verb:
    """Return what a verb is as a command."""
    return _VERBS[function]


def _options_of(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Declared]:
    found = dict[str, Declared]()
    scope = vars(sys.modules[function.__module__])
    for name, parameter in signature.parameters.items():
        try:
            hint = eval(str(parameter.annotation), scope)
        except NameError:  # a type that only type checkers import: no option
            continue
        kinds, marks = _taken_apart(hint)
        if marks:
            found[name] = Declared(
                name=name,
                kind=Path if Path in kinds else next(each for each in kinds if each is not NoneType),
                optional=NoneType in kinds,
                default=parameter.default,
                about=_merged(marks),
            )
    return found


def _taken_apart(hint: Any) -> tuple[list[Any], list[Opt]]:
    """Return the types and the declarations in an annotation: `Annotated`, a union, or one in the other."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_taken_apart(each) for each in get_args(hint)]
        return [kind for kinds, _ in parts for kind in kinds], [mark for _, marks in parts for mark in marks]
    if get_origin(hint) is Annotated:
        kinds, marks = _taken_apart(get_args(hint)[0])
        return kinds, [*marks, *(mark for mark in get_args(hint)[1:] if isinstance(mark, Opt))]
    return [hint], []


def _merged(marks: list[Opt]) -> Opt:
    """Return one declaration of several: what a later one says replaces what an earlier one says."""
    first, *others = marks
    for mark in others:
        said = {each.name: getattr(mark, each.name) for each in fields(Opt) if getattr(mark, each.name) != each.default}
        first = replace(first, **said)
    return first


def _with_options(doc: str, options: Mapping[str, Declared]) -> str:
    """Return a docstring with a line for each option that it does not describe."""
    lines = [f"        {name}: {each.about.help}" for name, each in options.items() if f"\n        {name}: " not in doc]
    return "\n".join([doc.rstrip(), "", "    Keyword Args:", *lines, "    "]) if lines else doc
