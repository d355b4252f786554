"""The command line: joins the commands, and is the only place that prints errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tipsseg.cli.wording import as_typed
from tipsseg.errors import TipssegError, UsageError
from tipsseg.util.printable import printable, quoted, shell_line

_MAIN_HELP = "Label every pixel of images with your own phrases, by TIPSv2."

_MAIN_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg weights download l14
  tipsseg label --help
"""


#: The commands, and what --help says of them. Each has its module in `tipsseg.cli.commands`.
_COMMANDS: Mapping[str, str] = {
    "label": "Label images: a mask, COCO annotations or an overlay of each.",
    "encode": "Keep features of images: later labels need no model run.",
    "convert": "Write the labels of a run in more formats, without the model.",
    "correct": "Take corrected labels back into an output folder.",
    "fit": "Learn classes from edited masks, for --vocab of label.",
    "tune": "Choose minimum confidences by edited masks, for --vocab of label.",
    "merge": "Join the shards of a run, or several runs, into one folder.",
    "check": "Read an output folder back: is all there, and what it should be?",
    "rank": "Print which images to review first, with reasons.",
    "report": "Make a page to look at: thumbnails, labels, numbers by class.",
    "eval": "Score labels against truth masks: mean IoU, confusion matrix.",
    "vocab": "Vocabularies: the presets, and files of your own.",
    "weights": "Download and verify the pinned weights.",
    "doctor": "Check this installation: versions, devices, numbers, weights.",
}

#: Where the module has another name, as `eval` is Python's.
_MODULES = {"eval": "evaluate"}


# The base of typer's errors of usage has had several homes; this one of its children is public.
_TyperUsageError: Any = typer.BadParameter.__mro__[1]


class _Group(TyperGroup):
    """Loads the command that is asked for, and turns expected errors into `Error:` and `Hint:` lines and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # To import all of them, and to look through their options, takes 0.45 of the time that importing typer takes.
        _refuse_missing_command(ctx, args)
        if args[0] in _COMMANDS:
            module = import_module(f"tipsseg.cli.commands.{_MODULES.get(args[0], args[0])}")
            self.commands[args[0]] = typer.main.get_command(module.app)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _typer_errors_printable():
            if args and args[0][:1] == "-" != args[0] and not ctx.resilient_parsing and _says_what_to_label(args):
                ctx.fail(f"The command is missing. Run: {shell_line(['tipsseg', 'label', *args])}")
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _typer_errors_printable():
                return super().invoke(ctx)
        except TipssegError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            number = interrupt.number if isinstance(interrupt, _Stopped) else signal.SIGINT
            what = "Interrupted" if number == signal.SIGINT else "Terminated"
            told = as_typed(": ".join([what, *getattr(interrupt, "__notes__", ())]))
            print(printable(f"{told}."), file=sys.stderr)
            raise typer.Exit(128 + number) from None


def _says_what_to_label(args: list[str]) -> bool:
    return not {"-c", "--classes", "--vocab"}.isdisjoint(args)


def _refuse_missing_command(ctx: Any, args: list[str]) -> None:
    """Raise UsageError where a path stands in the place of the command."""
    first = args[0]
    # What completes a command line must not raise.
    if first in _COMMANDS or ctx.resilient_parsing:
        return
    alike = get_close_matches(first, _COMMANDS, n=1)
    if alike and any(map(os.path.lexists, args[1:])):
        return  # a slip in the name of the command, of which typer tells, though a file may be called so
    if first == "-" or os.path.lexists(first) or (_says_what_to_label(args) and not alike):
        line = shell_line(["tipsseg", "label", *args])
        raise UsageError(
            f"the command is missing: {quoted(first)} is none",
            f"Did you mean {alike[0]!r}? Or run: {line}" if alike else f"Run: {line}",
        )


@contextmanager
def _typer_errors_printable() -> Iterator[None]:
    """Spell out what wrong arguments have in them, which typer prints as they are, or in part, by its version."""
    try:
        yield
    except _TyperUsageError as error:
        # A command without arguments is an error whose message is its help.
        if error.ctx is None or error.message != error.ctx.get_help():
            error.message = printable(error.message)
        if "Did you mean" in error.message and hasattr(error, "possibilities"):
            error.possibilities = None  # typer has added its guess; click 8.4 would add its own
        raise


class _Stopped(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: object) -> None:
    # The next signal stops at once, whatever is being tidied up.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise _Stopped(number)


app = typer.Typer(
    name="tipsseg",
    cls=_Group,
    help=_MAIN_HELP,
    epilog=_MAIN_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # As wide as the terminal, where the default ends at 80.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 10_000},
)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a background job of a shell, or nohup
            signal.signal(number, _stop)
    # A stream that the caller closed is None here; printing to it should do nothing.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    app()


def print_error(error: TipssegError) -> None:
    """`Error:` and, where there are some, `Hint:` and commands to paste, on stderr."""
    print(f"Error: {printable(as_typed(error.message))}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {printable(as_typed(error.hint))}", file=sys.stderr)
    for command in error.commands:
        print(f"  {printable(command)}", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tipsseg._version import __version__

        print(f"tipsseg {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _not_loaded() -> None:
    """Stands for a command until it is asked for."""


for _name, _summary in _COMMANDS.items():
    app.command(_name, help=_summary)(_not_loaded)
