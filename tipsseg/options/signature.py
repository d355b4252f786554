"""The options in the signature of a function: taken and checked when it is called, and shown by help()."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

from tipsseg.options.combinations import check_combinations
from tipsseg.options.fields import Declared, declared

_Function = TypeVar("_Function", bound=Callable[..., Any])


class OptionSignature:
    """The parameters of a function that callers see, and the options among them.

    Attributes:
        options: The options, by name.
    """

    def __init__(self, function: Callable[..., Any], hidden: int = 0) -> None:
        """Read the annotations of a function, without the first `hidden` parameters."""
        own = inspect.signature(function)
        self._name, self._scope = function.__qualname__, vars(sys.modules[function.__module__])
        self._public = own.replace(parameters=[*own.parameters.values()][hidden:])
        self.options = dict[str, Declared]()
        shown = []
        for name, parameter in self._public.parameters.items():
            with suppress(NameError):  # a type that only type checkers import: no option
                hint = eval(parameter.annotation, self._scope) if isinstance(parameter.annotation, str) else None
                if option := declared(name, hint, parameter.default):
                    self.options[name] = option
                    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
                    parameter = parameter.replace(annotation=getattr(kind, "__forward_arg__", kind))  # noqa: PLW2901
            shown.append(parameter)
        self._shown = self._public.replace(parameters=shown)

    def bind(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return the given arguments. Raise TypeError for others, with the name that the caller may have meant."""
        for key in keywords.keys() - self._public.parameters.keys():
            close = get_close_matches(key, self._public.parameters, 1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{self._name}() got an unexpected keyword argument {key!r}{hint}")
        return self._public.bind(*args, **keywords)

    def take(self, bound: inspect.BoundArguments) -> None:
        """Fill in the defaults, and turn each option into the one value that it means. Raise UsageError for other values."""
        bound.apply_defaults()
        for key, option in self.options.items():
            bound.arguments[key] = option.take(bound.arguments[key])
        check_combinations(self.options, bound.arguments)

    def describe(self, call: Any, doc: str) -> None:
        """Give a function this signature, and a docstring with a line for each option that `doc` does not describe."""
        texts = {name: str(each.about.told()) for name, each in self.options.items()}
        lines = [f"        {name}: {text}" for name, text in texts.items() if f"\n        {name}: " not in doc]
        call.__signature__ = self._shown
        call.__doc__ = "\n".join([doc.rstrip(), "", "    Keyword Args:", *lines, "    "]) if lines else doc


def takes_options(function: _Function) -> _Function:
    """Make a function take and check its options when it is called, as verbs do."""
    signature = OptionSignature(function)

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        bound = signature.bind(args, keywords)
        signature.take(bound)
        return function(*bound.args, **bound.kwargs)

    signature.describe(call, function.__doc__ or "")
    return cast(_Function, call)
