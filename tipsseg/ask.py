"""Make a verb of a function: the signature is the command line, the library's keywords, and what a folder records.

The first parameter of a verb is `ask`, which callers do not see. The type of each option is declared once, with `Annotated`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin

from tipsseg.address import address_text, as_address, has_scheme, without_secrets
from tipsseg.options.fields import Declared, declared
from tipsseg.util.text import shell_line

if TYPE_CHECKING:
    from tipsseg.run.repeat import RepeatedRun

#: The paths that a command prints on stdout (see `Verb`).
Prints = Literal["", "paths", "files"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Hold what is asked of a verb, and who gave each value.

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
    """Describe the command of a verb, beside the parameters of the function.

    Attributes:
        name: The name of the command.
        epilog: The text at the end of the help.
        prints: The paths that go to stdout: of images, or of written files where stdout is no terminal.
        jsonl: The help of the option that prints lines of JSON; "" without that option.
        json: The help of the option that prints one JSON object; "" without that option.
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

        call.__signature__ = _with_types(function, public)  # type: ignore[attr-defined]  # for help(), notebooks and editors
        call.__doc__ = _with_options(function.__doc__ or "", options)
        _VERBS[call] = Verb(name=name, epilog=epilog, prints=prints, jsonl=jsonl, json=json, options=options)
        return call

    return decorate


def verb_of(function: Callable[..., Any]) -> Verb:
    """Return what a verb is as a command."""
    return _VERBS[function]


def _with_types(function: Callable[..., Any], signature: inspect.Signature) -> inspect.Signature:
    """Return a signature with the types of options in place of their names."""
    scope, parameters = vars(sys.modules[function.__module__]), list[inspect.Parameter]()
    for parameter in signature.parameters.values():
        with suppress(NameError):
            hint = eval(str(parameter.annotation), scope)
            kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            parameter = parameter.replace(annotation=getattr(kind, "__forward_arg__", kind))  # noqa: PLW2901
        parameters.append(parameter)
    return signature.replace(parameters=parameters)


def _options_of(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Declared]:
    found = dict[str, Declared]()
    scope = vars(sys.modules[function.__module__])
    for name, parameter in signature.parameters.items():
        with suppress(NameError):  # a type that only type checkers import: no option
            option = declared(name, eval(str(parameter.annotation), scope), parameter.default)
            found |= {name: option} if option else {}
    return found


def _with_options(doc: str, options: Mapping[str, Declared]) -> str:
    """Return a docstring with a line for each option that it does not describe."""
    lines = [f"        {name}: {each.about.help}" for name, each in options.items() if f"\n        {name}: " not in doc]
    return "\n".join([doc.rstrip(), "", "    Keyword Args:", *lines, "    "]) if lines else doc
