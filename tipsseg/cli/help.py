"""How the help of a command looks: its options in groups, without the names of Python's types."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

TRUTH = "The truth"
WHAT = "What to label"
MODEL = "The model"
FILES = "The files"
IMAGES = "Many images"
MACHINES = "Many machines"
OTHER = "Other options"

_ARGUMENTS = "Arguments"
_ORDER = (_ARGUMENTS, TRUTH, WHAT, MODEL, FILES, IMAGES, MACHINES)


class Command(TyperCommand):
    """A command whose options stand in its help in the groups that `rich_help_panel` names; typer does so with rich alone.

    All arguments and options have a `metavar`, or typer would show their type.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options of the help."""
        arguments: list[tuple[str, str]] = []
        options: list[tuple[str, tuple[str, str]]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:  # hidden
                continue
            name, text = record
            if param.param_type_name == "argument":
                arguments.append((param.metavar or name, text))
            else:
                options.append((getattr(param, "rich_help_panel", None) or OTHER, (name, text)))
        if len({heading for heading, _ in options}) < 4:  # few options of each group
            options = [("Options", row) for _, row in options]
        headings = dict.fromkeys((*_ORDER, *(heading for heading, _ in options)))
        for heading in headings:
            rows = arguments if heading == _ARGUMENTS else [row for each, row in options if each == heading]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
