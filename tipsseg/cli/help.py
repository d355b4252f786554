"""How the help of a command looks, its options in groups; and what a shell completes the values of options to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from tipsseg.errors import UsageError
from tipsseg.formats import FORMATS
from tipsseg.options.fields import GROUPS, OTHER, Completion

_ARGUMENTS = "Arguments"

#: Where a context keeps that all options are to be shown.
_ALL = "tipsseg.help_all"


#: Options of earlier versions, and what takes their place.
_GONE = {
    "-v": "Write --vocab.",
    "--actors": "Write --ray 4 for four actors, or --ray 4x1 for four with a GPU each.",
    "--engine": "Write --ray 4 for four actors of a Ray cluster; without --ray this process labels.",
    "--gpus": "Write --ray 4x0.5 for four actors with half a GPU each.",
    "--templates": "Write `templates` into a vocabulary file; tipsseg vocab show makes one, and has --templates.",
}


class Command(TyperCommand):
    """A command whose options stand in its help in the groups that `rich_help_panel` names; typer does so with rich alone.

    All arguments and options have a `metavar`, or typer would show their type.

    Attributes:
        rare: The names of the options that --help-all alone shows.
    """

    rare: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments. Raise UsageError if --vocab is there twice, as of any option the last counts."""
        try:
            _, _, found = self.make_parser(ctx).parse_args(list(args))
            if sum(param.name == "vocab" for param in found) > 1:
                raise UsageError(
                    "--vocab is given more than once", "Give one; put all classes into one vocabulary file."
                )
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = getattr(error, "option_name", None)
            if flag in _GONE and any(param.name == "vocab" for param in self.params):
                raise UsageError(f"{flag} is gone", _GONE[flag]) from None
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments: list[tuple[str, str]] = []
        options: list[tuple[str, tuple[str, str]]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or (param.name in self.rare and not ctx.meta.get(_ALL)):
                continue
            name, text = record
            if param.param_type_name == "argument":
                arguments.append((param.metavar or name, text))
            else:
                options.append((getattr(param, "rich_help_panel", None) or OTHER, (name, text)))
        if len({heading for heading, _ in options}) < 4:  # few options of each group
            options = [("Options", row) for _, row in options]
        headings = dict.fromkeys((_ARGUMENTS, *GROUPS, *(heading for heading, _ in options)))
        for heading in headings:
            rows = arguments if heading == _ARGUMENTS else [row for each, row in options if each == heading]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[_ALL] = True
        print(context.get_help())
        raise typer.Exit


def completion_of(choices: tuple[str, ...] | Completion) -> Callable[[str], list[str]]:
    """Return what completes a value to one of these choices, or to one of a list that has a name."""
    if choices == "formats":
        return complete_formats
    if choices == "models":
        return complete_models
    if choices == "presets":
        return complete_presets

    def complete(incomplete: str) -> list[str]:
        return [name for name in choices if name.startswith(incomplete)]

    return complete


def complete_formats(incomplete: str) -> list[str]:
    """Completes the last name of a list with commas to a format that is not in the list."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in FORMATS if name.startswith(last) and name not in taken]


def complete_models(incomplete: str) -> list[str]:
    from tipsseg.weights.lock import read_lock

    return [name for name in read_lock() if name.startswith(incomplete)]


def complete_presets(incomplete: str) -> list[str]:
    from tipsseg.vocabulary.files import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]
