"""Define options as dataclass fields with a type, a default, help, a flag and a group.

Command parameters, library keywords, run.json entries and the flags in messages are all derived from these fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin

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

#: What an option changes: the labels, the label files, how the machine works, which images are labelled, how masks and other
#: sources are read, what this one command does, or what is printed.
Role = Literal["labels", "files", "machine", "images", "sources", "action", "printing"]

#: What the question of a folder holds of an option: its value; what stands for it, such as the hashes of a model (see
#: `spec.question_facts`), only that it was given, or nothing, so that it can be changed at any time.
Held = Literal["value", "identity", "given", "nothing"]

#: See `Option.recorded`.
COMMAND = "command"

#: Names of the lists for shell completion.
Completion = Literal["formats", "models", "presets", "corrections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A command-line option, often also a keyword argument of the library.

    Attributes:
        help: The help text, in one or two sentences.
        flag: The long flag without its dashes. If empty, the field's name.
        short: The letter or digit of the short flag.
        negatable: True if the option also has a --no- flag.
        metavar: The placeholder of the value in the help. Empty for switches and choices.
        group: The option's group in the help.
        rare: True if only --help-all prints the option.
        choices: The values for shell completion, or the name of a list of them.
        min: The least value; `above` is a limit that is no value itself.
        max: The greatest value; `below` is a limit that is no value itself.
        check: A function that converts and checks a value, in place of its type and limits. It raises UsageError.
        hint: Advice for values beyond the limits.
        commands_give: The fixed value that commands pass if they do not offer the option. None if they offer it.
        role: What the option changes.
        held: What the question of a folder holds of it.
        repeated: True if `--from` repeats it.
        recorded: Where run.json has it: the object, and its key there if that is not its name, such as "regions.source"; COMMAND if
            only the recorded command line has it; "" if run.json does not have it.
        rasters: False if a run of rasters rejects it.
        argument: True for an argument of the command line, which has no flag.
        typed: The type of the words on the command line, if that is not the option's own.
        required: True if the command requires it, although the library has a default.
        stdin: What `-` on the command line means: a list on stdin, in place of "paths", of one "path", or of a "list" in a file.
    """

    help: str
    flag: str = ""
    short: str = ""
    negatable: bool = False
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
    commands_give: object = None
    role: Role = "printing"
    held: Held = "nothing"
    repeated: bool = False
    recorded: str = ""
    rasters: bool = True
    argument: bool = False
    typed: Any = None
    required: bool = False
    stdin: Literal["", "paths", "path", "list"] = ""

    def long(self, name: str) -> str:
        """Return the long flag of the field `name`."""
        return f"--{self.flag or name.replace('_', '-')}"

    def place(self, name: str) -> tuple[str, str]:
        """Return the object of run.json that has the field `name`, and its key there; ("", key) for one of run.json itself."""
        group, _, key = self.recorded.partition(".")
        return ("", name) if self.recorded == name else (group, key or name)

    def flags(self, name: str) -> tuple[str, ...]:
        """Return all flags of the field `name`."""
        long = self.long(name)
        both = f"{long}/--no-{long[2:]}" if self.negatable else long
        return (both, f"-{self.short}") if self.short else (both,)


def option(default: object, *, help: str, **more: Any) -> Any:  # noqa: A002  typer's word
    """Return a dataclass field for an option; `more` are attributes of Option."""
    return field(default=default, metadata={"option": Option(help=help, **more)})


def options_of(record: type) -> dict[str, tuple[Field[Any], Option]]:
    """Return a record's option fields by name."""
    return {item.name: (item, item.metadata["option"]) for item in fields(record) if "option" in item.metadata}


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


def keywords_of(record: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the options of a record as keywords of a function; all, or those with these names."""
    return {name: getattr(record, name) for name in (options_of(type(record)) if names is None else names)}


def take_options(record: type[_Record], keywords: Mapping[str, Any]) -> _Record:
    """Build a record from the keywords that are fields of it; None means the default."""
    names = {item.name for item in fields(record)}  # type: ignore[arg-type]  # a record is a dataclass
    return record(**{name: value for name, value in keywords.items() if name in names and value is not None})
