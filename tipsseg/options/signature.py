"""The options in the signature of a function: taken and checked when it is called, and shown by help()."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_origin

from tipsseg.errors import UsageError, Words
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


class _Excludes(NamedTuple):
    """Two options that exclude each other, and what to do."""

    first: str
    second: str
    hint: str = "Use one of them."


class _Requires(NamedTuple):
    """An option that works only with another option, and what to do."""

    name: str
    other: str
    hint: str


_EXCLUDES = (
    _Excludes("classes", "vocab"),
    _Excludes("overwrite", "shard", "Choose another output folder, or start over without {shard}."),
    _Excludes("overwrite", "prune", "A run that starts over keeps no labels of images that are gone."),
    _Excludes("ray", "shard", "Remove one of them."),
    _Excludes("ground_resolution", "scales"),
    _Excludes("formats", "drop", "Run one after the other."),
    _Excludes("extra", "drop", "Run one after the other."),
    _Excludes("extra", "to", "A data set has no options of formats."),
    _Excludes("corrections", "undo", "Run one after the other."),
    _Excludes("corrections", "remove", "Run one after the other."),
    _Excludes("undo", "remove", "Run one after the other."),
    _Excludes("layout", "ignore_index", "A layout defines the ids of ground truth."),
    _Excludes("layout", "reduce_zero_label", "A layout defines the ids of ground truth."),
    _Excludes("layout", "zero_based", "A layout defines the ids of ground truth."),
    _Excludes(
        "reduce_zero_label",
        "zero_based",
        "Use the first if 0 marks ignored pixels, the second if 0 is the first class.",
    ),
)

_REQUIRES = (
    _Requires("regions_only", "regions", "Set {regions}."),
    _Requires("regions_margin", "regions", "Set {regions}."),
    _Requires("regions_margin", "refine", "Set {refine}=pamr-guided."),
    _Requires("shard_size", "to", "Pass the folder of the data set with {to}."),
    _Requires("overwrite", "to", "Pass the folder of the data set with {to}."),
)


def check_combinations(options: Mapping[str, Declared], values: Mapping[str, Any]) -> None:
    """Raise UsageError if options cannot be combined, or if one lacks an option that it requires."""
    used = {name for name, option in options.items() if values[name] is not None and values[name] != option.default}
    for first, second, hint in _EXCLUDES:
        if {first, second} <= used:
            raise UsageError(Words(f"{{{first}}} and {{{second}}} exclude each other"), Words(hint))
    for name, other, hint in _REQUIRES:
        if name in used and other in options and other not in used:
            raise UsageError(Words(f"{{{name}}} requires {{{other}}}"), Words(hint))


def combinations_of(name: str, options: Iterable[str]) -> Words:
    """Return what users read in the help about an option: the options that it excludes, or requires."""
    excluded = [other for rule in _EXCLUDES if name in rule[:2] for other in rule[:2] if other != name]
    required = [rule.other for rule in _REQUIRES if rule.name == name]
    texts = [("Not with", " or ", excluded), ("Requires", " and ", required)]
    found = [(what, word.join(f"{{{each}}}" for each in names if each in options)) for what, word, names in texts]
    return Words(" ".join(f"{what} {names}." for what, names in found if names))
