"""Declare an option as a type: `Annotated` with help, a flag, a group and a role.

Command parameters, library keywords, run.json entries and the flags in messages are all derived from these declarations.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tipsseg.errors import UsageError, Words, named
from tipsseg.util.files import local_path
from tipsseg.util.text import quote

_Record = TypeVar("_Record")

#: The groups of a command's help, in order.
TRUTH = "Ground-truth masks"
WHAT = "What to label"
MODEL = "Model"
FILES = "Files"
IMAGES = "Images"
RASTERS = "Rasters"
MACHINES = "Many machines"
OTHER = "Other options"

GROUPS = (TRUTH, WHAT, MODEL, FILES, IMAGES, RASTERS, MACHINES, OTHER)

#: What an option changes: the labels, the label files, where files are, how the machine works, which images are labelled, how
#: masks and other sources are read, what this one command does, or what is printed. Commands lack an option of the library: they
#: pass True.
Role = Literal["labels", "files", "place", "machine", "images", "sources", "action", "printing", "library"]

#: See `Opt.recorded`.
COMMAND = "command"

#: Names of the lists for shell completion.
Completion = Literal["formats", "models", "presets", "corrections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opt:
    """A command-line option, often also a keyword argument of the library.

    Attributes:
        help: The help text, in one or two sentences.
        flag: The long flag without its dashes. If empty, the field's name.
        short: The letter or digit of the short flag.
        metavar: The placeholder of the value in the help. Empty for switches and choices.
        group: The option's group in the help.
        rare: True if only --help-all prints the option.
        choices: The values for shell completion, or the name of a list of them.
        min: The least value; `above` is a limit that is no value itself.
        max: The greatest value; `below` is a limit that is no value itself.
        check: A function that converts and checks a value, in place of its type and limits. It raises UsageError.
        hint: Advice for values beyond the limits.
        role: What the option changes.
        recorded: Where run.json has it: the object, and its key there if that is not its name, such as "regions.source"; COMMAND if
            only the recorded command line has it; "" if run.json does not have it.
        blocks: False if a run that labels pictures in blocks rejects it.
        argument: True for an argument of the command line, which has no flag.
        typed: The type of the words on the command line, if that is not the option's own.
        required: True if the command requires it, although the library has a default.
        commas: True if a single word on the command line is a list, separated by commas.
        stdin: What `-` on the command line means: a list on stdin, in place of "paths", of one "path", or of a "list" in a file.
    """

    help: str
    flag: str = ""
    short: str = ""
    metavar: str = ""
    group: str = OTHER
    rare: bool = False
    choices: tuple[str, ...] | Completion = ()
    min: float | None = None
    above: float | None = None
    max: float | None = None
    below: float | None = None
    check: Callable[[Any], object] | None = None
    hint: str = ""
    role: Role = "printing"
    recorded: str = ""
    blocks: bool = True
    argument: bool = False
    typed: Any = None
    required: bool = False
    commas: bool = False
    stdin: Literal["", "paths", "path", "list"] = ""

    def told(self, choices: str = "see the command") -> Words:
        """Return the help, with a text for its placeholder `choices`."""
        return Words(self.help, choices=choices)

    def long(self, name: str) -> str:
        """Return the long flag of the field `name`."""
        return f"--{self.flag or name.replace('_', '-')}"

    def place(self, name: str) -> tuple[str, str]:
        """Return the object of run.json that has the field `name`, and its key there; ("", key) for one of run.json itself."""
        group, _, key = self.recorded.partition(".")
        return ("", name) if self.recorded == name else (group, key or name)

    @property
    def repeated(self) -> bool:
        """Return True if `--from` repeats the option."""
        return self.recorded not in ("", COMMAND) and self.role != "place"

    def flags(self, name: str) -> tuple[str, ...]:
        """Return all flags of the field `name`."""
        long = self.long(name)
        return (long, f"-{self.short}") if self.short else (long,)


#: How a value is shown that has no text of its own.
_NO_TEXT: Any = object.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An option where it is used: a parameter of a verb, or a field of a record.

    Attributes:
        name: The keyword.
        kind: The type, without None.
        optional: True if None is a value.
        default: The default; `inspect.Parameter.empty` if the option is required.
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
        return check_value(named(self.name), value, self.kind, self.about)

    def words(self, value: object) -> list[str] | None:
        """Return the words of a value on the command line; None if there are none, as for a Vocabulary."""
        flag = self.about.long(self.name)
        if isinstance(value, bool):
            return [flag] * value
        parts = value if isinstance(value, tuple | list) else (value,)
        if not all(isinstance(each, str | int | float) or type(each).__str__ is not _NO_TEXT for each in parts):
            return None
        texts = [text_of(each) for each in parts]
        if self.about.argument:
            return [f"./{text}" if text.startswith("-") and text != "-" else text for text in texts]
        if self.about.commas and any("," in text for text in texts):
            return [f"{flag}={text}" for text in texts] if len(texts) > 1 else None
        if self.about.typed == list[str] and not self.about.commas:
            return [f"{flag}={text}" for text in texts]
        return [f"{flag}={','.join(texts)}"]


def declared(name: str, hint: Any, default: Any) -> Declared | None:
    """Return the option that an annotation declares; None if it declares none."""
    kinds, marks = _taken_apart(hint)
    if not marks:
        return None
    optional = NoneType in kinds
    kind = next((each for each in (Path, str) if each in kinds), next(each for each in kinds if each is not NoneType))
    return Declared(name=name, kind=kind, optional=optional, default=default, about=_merged(marks))


def _taken_apart(hint: Any) -> tuple[list[Any], list[Opt]]:
    """Return the types and the declarations in an annotation: `Annotated`, a union, or one in the other."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_taken_apart(each) for each in get_args(hint)]
        return [kind for kinds, _ in parts for kind in kinds], [mark for _, marks in parts for mark in marks]
    if get_origin(hint) is Annotated:
        kind, *extras = get_args(hint)
        kinds, marks = _taken_apart(kind)
        own = [[each] if isinstance(each, Opt) else _taken_apart(each)[1] for each in extras]
        return kinds, [*marks, *chain.from_iterable(own)]
    return [hint], []


def _merged(marks: list[Opt]) -> Opt:
    """Return one declaration of several: what a later one says replaces what an earlier one says."""
    first, *others = marks
    for mark in others:
        said = {each.name: getattr(mark, each.name) for each in fields(Opt) if getattr(mark, each.name) != each.default}
        first = replace(first, **said)
    return first


def _read_options(record: Any) -> Mapping[str, Declared]:
    """Return the options that the fields of a record declare, by name."""
    hints = get_type_hints(record, include_extras=True)
    found = (declared(item.name, hints[item.name], item.default) for item in fields(record))
    return {each.name: each for each in found if each is not None}


#: Returns the options that the fields of a record declare, by name.
options_of: Callable[[type], Mapping[str, Declared]] = cache(_read_options)


class OptionRecord:
    """The base of records whose options are checked; the type of an option says whether None is a value."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_options(self)


def check_options(record: Any) -> None:
    """Convert the options of a record, and check them against their types, choices and limits.

    Raise UsageError that names the argument and the values that it takes.
    """
    for name, each in options_of(type(record)).items():
        object.__setattr__(record, name, each.take(getattr(record, name)))


def check_value(argument: str, value: Any, kind: object, about: Opt) -> object:
    """Convert the value of an option, and check it against its type, choices and limits. Raise UsageError that names it."""
    if about.check is not None:
        return about.check(value)
    if kind is bool and not isinstance(value, bool):
        raise _unfit(argument, "True or False", value)
    if kind is Path:
        if not isinstance(value, str | os.PathLike):
            kind = type(value).__name__
            raise UsageError(
                Words("{argument} must be a path, not {kind}", argument=argument, kind=kind), "Pass a folder or a file."
            )
        return local_path(argument, value)
    if kind is int:
        value = check_whole_number(argument, value, about.min or 0)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise _unfit(argument, "a number", value)
        value = float(value)  # 1 and 1.0 are one question
    choices = choices_of(kind)
    if choices and not (isinstance(value, str) and value in choices):
        raise _unfit(argument, f"one of {', '.join(choices)}", value)
    limits = (
        (about.min, operator.ge, "at least"),
        (about.above, operator.gt, "above"),
        (about.max, operator.le, "at most"),
        (about.below, operator.lt, "below"),
    )
    if not all(limit is None or test(value, limit) for limit, test, _ in limits):
        allowed = " and ".join(f"{word} {limit:g}" for limit, _, word in limits if limit is not None)
        raise _unfit(argument, allowed, value, about.hint)
    return value


def check_whole_number(argument: str, value: object, least: float = 1) -> int:
    """Return the value as an int. Raise UsageError if it is not a whole number, or is less than `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # numpy integers have __index__ too
    except TypeError:
        raise _unfit(argument, "a whole number", value) from None
    if number < least:
        text = "{argument}={number} is too small; the minimum is {least}"
        raise UsageError(Words(text, argument=argument, number=number, least=least))
    return number


def _unfit(argument: str, allowed: str, value: object, hint: str = "") -> UsageError:
    text = "{argument} must be {allowed}, not {value}"
    return UsageError(Words(text, argument=argument, allowed=allowed, value=quote(value)), hint)


def choices_of(kind: object) -> tuple[str, ...]:
    """Return the values of a Literal, even inside a union, or () for other types."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((choices for part in get_args(kind) if (choices := choices_of(part))), ())


def text_of(value: object) -> str:
    """Return an option's value as a user would type it."""
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def record_of(options: Any) -> dict[str, object]:
    """Return a record's options as JSON values."""
    return {name: json_value(getattr(options, name)) for name in options_of(type(options))}


def json_value(value: object) -> object:
    """Return an option's value as run.json stores it."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def short_repr(record: Any) -> str:
    """Return a repr that shows only the fields that differ from their defaults."""
    values = {entry.name: (getattr(record, entry.name), entry.default) for entry in fields(record)}
    texts = [f"{name}={value!r}" for name, (value, default) in values.items() if value != default]
    return f"{type(record).__name__}({', '.join(texts)})"


def take_options(record: type[_Record], keywords: Mapping[str, Any]) -> _Record:
    """Build a record from the keywords that are fields of it; None means the default."""
    names = {item.name for item in fields(record)}  # type: ignore[arg-type]  # a record is a dataclass
    return record(**{name: value for name, value in keywords.items() if name in names and value is not None})
