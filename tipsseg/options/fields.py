"""Fields of records that are options: a field says its type, default, help, flag and group once.

The command line makes its parameters out of these fields, the library its keywords, run.json its entries, and messages the flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin

from tipsseg.errors import UsageError

_Record = TypeVar("_Record")

#: The groups of a command's help, in their order.
TRUTH = "The truth"
WHAT = "What to label"
MODEL = "The model"
FILES = "The files"
IMAGES = "Many images"
MACHINES = "Many machines"
OTHER = "Other options"

GROUPS = (TRUTH, WHAT, MODEL, FILES, IMAGES, MACHINES, OTHER)

#: Lists that a shell completes a value from.
Completion = Literal["formats", "models", "presets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command, which may be a keyword of the library too.

    Attributes:
        help: A sentence or two.
        flag: The name that a user types after two dashes. Empty: that of the field.
        short: A letter, or a digit, that stands for the name.
        negatable: There is a flag for False too.
        metavar: Stands for the value in the help. Empty for a switch, and for choices, which stand for themselves.
        group: The group of the help that it stands in.
        rare: The option is shown by the whole help alone.
        choices: The values that a shell completes, or the name of a list of them.
        read: Makes the value out of the texts that were typed, if the record does not take a text.
        sparse: A record leaves the option out at its default, as earlier versions did not have it.
        commands_give: What commands give, as it is no option of theirs. None: it is an option.
    """

    help: str
    flag: str = ""
    short: str = ""
    negatable: bool = False
    metavar: str = ""
    group: str = OTHER
    rare: bool = False
    choices: tuple[str, ...] | Completion = ()
    read: Callable[[Any], object] | None = None
    sparse: bool = False
    commands_give: object = None

    def long(self, name: str) -> str:
        """Return the flag of a field with this name, as messages have it."""
        return f"--{self.flag or name.replace('_', '-')}"

    def flags(self, name: str) -> tuple[str, ...]:
        """Return all that a user may type for a field with this name."""
        long = self.long(name)
        both = f"{long}/--no-{long[2:]}" if self.negatable else long
        return (both, f"-{self.short}") if self.short else (both,)


def option(default: object, *, help: str, **more: Any) -> Any:  # noqa: A002  the word of the command line
    """Return a field of a record that is an option; `more` as in Option."""
    return field(default=default, metadata={"option": Option(help=help, **more)})


def options_of(record: type) -> dict[str, tuple[Field[Any], Option]]:
    """Return the fields of a record that are options, by their names."""
    return {each.name: (each, each.metadata["option"]) for each in fields(record) if "option" in each.metadata}


def choices_of(kind: object) -> tuple[str, ...]:
    """Return the values that a type admits: those of a Literal, and none otherwise."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((found for each in get_args(kind) if (found := choices_of(each))), ())


def text_of(value: object) -> str:
    """Return the value of an option as a command takes it."""
    if isinstance(value, tuple | list):
        return ",".join(text_of(each) for each in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def record_of(options: Any) -> dict[str, object]:
    """Return the options of a record as JSON values."""
    return {
        name: _json_value(value)
        for name, (each, about) in options_of(type(options)).items()
        if (value := getattr(options, name)) != each.default or not about.sparse
    }


def _json_value(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def read_options(record: type[_Record], values: Mapping[str, object]) -> _Record:
    """Return the record that `record_of` wrote among other values. Raises ValueError."""
    given = {}
    for name, (_, about) in options_of(record).items():
        if name in values:
            given[name] = values[name]
        elif not about.sparse:
            raise ValueError(f"no `{name}`")
    try:
        return record(**given)
    except UsageError as error:
        raise ValueError(error.message) from error


def short_repr(record: Any) -> str:
    """Return the repr of a record with the fields that differ from their defaults."""
    values = {entry.name: (getattr(record, entry.name), entry.default) for entry in fields(record)}
    texts = [f"{name}={value!r}" for name, (value, default) in values.items() if value != default]
    return f"{type(record).__name__}({', '.join(texts)})"


def take_options(record: type[_Record], keywords: Mapping[str, Any]) -> _Record:
    """Return a record with those keywords that are fields of it; None stands for the default."""
    names = {each.name for each in fields(record)}  # type: ignore[arg-type]  # a record is a dataclass
    return record(**{name: value for name, value in keywords.items() if name in names and value is not None})
