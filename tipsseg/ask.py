"""Make a verb of a function: the signature is the command line, the library's keywords, and what a folder records.

The first parameter of a verb is `ask`, which callers do not see. The type of each option is declared once, with `Annotated`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from tipsseg.address import address_text, as_address, has_scheme, without_secrets
from tipsseg.options.fields import Declared
from tipsseg.options.signature import OptionSignature
from tipsseg.util.text import shell_line

if TYPE_CHECKING:
    from tipsseg.folder.repeat import RepeatedRun

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

    def command(self, *, anywhere: bool = False, without: Collection[str] = (), otherwise: Path | None = None) -> str:
        """Return the command line of what was given. Secrets in addresses are left out.

        Args:
            anywhere: Make paths absolute.
            without: The names of parameters to leave out.
            otherwise: The folder whose run.json has the values without words. None: such values make the line "".
        """

        def text(value: object) -> object:
            if isinstance(value, tuple):
                return tuple(map(text, value))
            if not isinstance(value, Path):
                return value
            place = as_address(value)
            return without_secrets(address_text(place.absolute() if anywhere and not has_scheme(place) else place))

        words, lacking = ["tipsseg", *self.name.split()], False
        for name, option in self.options.items():
            left_out = name in without or option.about.role == "library"
            if name in self.given and not left_out and self.values[name] is not None:
                own = option.words(text(self.values[name]))
                lacking |= own is None
                words += own or []
        if lacking and otherwise is None:
            return ""
        return shell_line([*words, f"--from={otherwise}"] if lacking else words)


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
        signature = OptionSignature(function, hidden=1)

        @wraps(function)
        def call(*args: _P.args, **keywords: _P.kwargs) -> _R:
            bound = signature.bind(args, keywords)
            given, repeated = frozenset(bound.arguments), None
            if (path := bound.arguments.get("from_run")) is not None:
                from tipsseg.folder.repeat import read_run_file

                repeated = read_run_file(Path(str(signature.options["from_run"].take(path))))
                bound.arguments |= repeated.options(given)
            signature.take(bound)
            values = dict(bound.arguments)
            ask = Ask(name=name, options=signature.options, values=values, given=given, repeated=repeated)
            return function(ask, *bound.args, **bound.kwargs)

        signature.describe(call, function.__doc__ or "")
        _VERBS[call] = Verb(name=name, epilog=epilog, prints=prints, jsonl=jsonl, json=json, options=signature.options)
        return call

    return decorate


def verb_of(function: Callable[..., Any]) -> Verb:
    """Return what a verb is as a command."""
    return _VERBS[function]
