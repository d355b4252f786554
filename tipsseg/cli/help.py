"""Group the options in a command's help, give hints for wrong options, and complete values in a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from tipsseg.errors import UsageError
from tipsseg.formats import DATASET_FORMATS, FORMATS, correction_formats
from tipsseg.options.fields import GROUPS, OTHER, Completion

_ARGUMENTS = "Arguments"

#: The key in a context's `meta` that makes the help include rare options.
_ALL = "tipsseg.help_all"

#: Hints for options of other tools, for commands that have `--vocab`.
_HINTS = {
    **dict.fromkeys(
        ("--labels", "--prompt", "--prompts", "--text", "--text-prompt", "--queries"),
        'Write --classes "panda leg,tree".',
    ),
    "--recursive": "Remove it; folders are always searched recursively.",
    **dict.fromkeys(("--threshold", "--conf", "--confidence"), "Write --min-confidence 0.5."),
}


class Command(TyperCommand):
    """A command whose help groups options by `rich_help_panel`; typer alone does so only if rich is installed.

    Arguments and options need a `metavar`, or typer prints their Python types.

    Attributes:
        rare: Names of the options that only --help-all prints.
    """

    rare: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments. Raise UsageError for known wrong options, and for a repeated --vocab.

        Of several --vocab, click would use the last.
        """
        names = {param.name for param in self.params}
        if "help_all" not in names:  # its help is whole
            args = ["--help" if word == "--help-all" else word for word in args]
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            if sum(param.name == "vocab" for param in given) > 1:
                raise UsageError("--vocab is given more than once", "Put all classes into one vocabulary file.")
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = getattr(error, "option_name", None)
            if flag in _HINTS and "vocab" in names:
                raise UsageError(f"unknown option {flag}", _HINTS[flag]) from None
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
        if len({heading for heading, _ in options}) < 4:  # too few for groups
            options = [("Options", row) for _, row in options]
        for heading in dict.fromkeys((_ARGUMENTS, *GROUPS, *(heading for heading, _ in options))):
            rows = arguments if heading == _ARGUMENTS else [row for group, row in options if group == heading]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[_ALL] = True
        print(context.get_help())
        raise typer.Exit


def completion_of(choices: tuple[str, ...] | Completion) -> Callable[[str], list[str]]:
    """Return a function that completes a value to one of the choices, or to a name in a known list."""

    def complete(incomplete: str) -> list[str]:
        # A list of formats is separated by commas; complete its last name, to one that is not in the list yet.
        before, comma, last = incomplete.rpartition(",") if choices == "formats" else ("", "", incomplete)
        listed = before.split(",")
        names = choices if isinstance(choices, tuple) else _names(choices)
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in listed]

    return complete


def _names(known: Completion) -> Iterable[str]:
    if known == "models":
        from tipsseg.weights.lock import read_lock

        return read_lock()
    if known == "presets":
        from tipsseg.vocabulary.files import preset_names

        return preset_names()
    return [*FORMATS, *DATASET_FORMATS] if known == "formats" else correction_formats()
