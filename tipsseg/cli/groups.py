"""Groups of commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from tipsseg.util.text import message_line

if TYPE_CHECKING:
    from tipsseg.errors import NameOf
    from tipsseg.options.fields import Declared

# typer has moved the base class of its usage errors between modules, so find it through a public subclass.
_TyperUsageError: Any = typer.BadParameter.__mro__[1]


#: The key in the `meta` of a context that has a function which names options (see `words.NameOf`).
FLAGS = "tipsseg.flags"


def flags_of(options: Mapping[str, Declared]) -> NameOf:
    """Return a function that names options as a command with these options does."""

    def name_of(option: str) -> str:
        return options[option].about.long(option) if option in options else f"--{option.replace('_', '-')}"

    return name_of


class Group(TyperGroup):
    """A group of commands; its help is whole, so --help-all is --help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with typer_errors_printable():
            return super().parse_args(ctx, ["--help"] if args[:1] == ["--help-all"] else args)


@contextmanager
def typer_errors_printable() -> Iterator[None]:
    """Escape control characters in typer's messages; depending on its version, typer escapes some or none."""
    try:
        yield
    except _TyperUsageError as error:
        # For a command without arguments, typer raises an error whose message is the help.
        if error.ctx is None or error.message != error.ctx.get_help():
            error.message = message_line(error.message)
        if "Did you mean" in error.message and hasattr(error, "possibilities"):
            error.possibilities = None  # typer has added a suggestion; click 8.4 would add another
        raise
