"""Entry point of the command line: load the command, print its errors."""

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

from tipsseg.cli import signals
from tipsseg.errors import TipssegError, UsageError
from tipsseg.util.printable import printable, quote, shell_line

_MAIN_HELP = "Label every pixel of your images with your own phrases."

_MAIN_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg weights download l14
  tipsseg label --help
"""

#: Commands and their summaries in --help. Each command is a module of `tipsseg.cli.commands`.
_COMMANDS: Mapping[str, str] = {
    "label": "Label images and write masks, COCO annotations and overlays.",
    "encode": "Store image features, so that relabelling skips the model.",
    "convert": "Write the labels of a run in more formats, without the model.",
    "correct": "Import corrected labels into an output folder.",
    "fit": "Learn classes or thresholds from edited masks, for label --vocab.",
    "merge": "Join the shards of a run, or several runs, into one folder.",
    "check": "Verify an output folder.",
    "rank": "List the images to review first; --jsonl adds confidences.",
    "report": "Write an HTML page with thumbnails, labels and class statistics.",
    "eval": "Score labels against ground truth: mean IoU, confusion matrix.",
    "audit": "List existing labels that the model doubts.",
    "vocab": "List, print and check vocabularies.",
    "weights": "Download and verify the pinned weights.",
    "doctor": "Check this installation: versions, devices, numbers, weights.",
}

#: Commands whose module has a different name, because `eval` is a built-in function.
_MODULES = {"eval": "evaluate"}

#: Names that users try, and the commands they mean.
_GUESSES = {
    **dict.fromkeys(("annotate", "predict", "run", "segment"), "label"),
    "embed": "encode",
    "export": "convert",
    "import": "correct",
    "train": "fit",
    "tune": "fit",
    "show": "report",
    "view": "report",
    "evaluate": "eval",
    "help": "--help",
    "version": "--version",
}


# typer has moved the base class of its usage errors between modules, so find it through a public subclass.
_TyperUsageError: Any = typer.BadParameter.__mro__[1]


class _Group(TyperGroup):
    """Load the command that the user names. Print expected errors as `Error:` and `Hint:` lines, and set the exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # Importing all commands with their options would take 0.45 times as long as importing typer.
        _refuse_other_words(ctx, args)
        if args[0] in _COMMANDS:
            module = import_module(f"tipsseg.cli.commands.{_MODULES.get(args[0], args[0])}")
            self.commands[args[0]] = typer.main.get_command(module.app)
        command = super().resolve_command(ctx, args)
        signals.raise_on_signals()
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _typer_errors_printable():
            if args and args[0][:1] == "-" != args[0] and not ctx.resilient_parsing and _has_classes(args):
                ctx.fail(f"Missing command. Run: {shell_line(['tipsseg', 'label', *args])}")
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _typer_errors_printable():
                return super().invoke(ctx)
        except TipssegError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            number = interrupt.number if isinstance(interrupt, signals.Stopped) else signal.SIGINT
            what = "Interrupted" if number == signal.SIGINT else "Terminated"
            _print_line(": ".join([what, *getattr(interrupt, "__notes__", ())]) + ".")
            raise typer.Exit(128 + number) from None
        finally:
            signals.end_on_signals()


def _has_classes(args: list[str]) -> bool:
    return not {"-c", "--classes", "--vocab"}.isdisjoint(args)


def _refuse_other_words(ctx: Any, args: list[str]) -> None:
    """Raise UsageError for a path instead of a command, and for the names that other tools give their commands."""
    first, *rest = args
    if first in _COMMANDS or ctx.resilient_parsing:  # completion must not raise
        return
    is_path = first == "-" or os.path.lexists(first)
    if first == "undo" and not is_path:
        raise UsageError(
            "unknown command 'undo'",
            "tipsseg label IMAGES -o OUT --replace-edited relabels edited images; --overwrite starts over.",
        )
    if first in _GUESSES and (not is_path or any(map(os.path.lexists, rest))):
        raise UsageError(f"unknown command {first!r}", f"Run: {shell_line(['tipsseg', _GUESSES[first], *rest])}")
    alike = get_close_matches(first, _COMMANDS, n=1)
    if alike and any(map(os.path.lexists, rest)):
        return  # typer reports a misspelt command, even if a file has that name
    if is_path or (_has_classes(args) and not alike):
        line = shell_line(["tipsseg", "label", *args])
        kind = "a folder" if Path(first).is_dir() else "a file"
        raise UsageError(
            f"missing command: {quote(first)} is {kind if is_path and first != '-' else 'not a command'}",
            f"Did you mean {alike[0]!r}? Or run: {line}" if alike else f"Run: {line}",
        )


@contextmanager
def _typer_errors_printable() -> Iterator[None]:
    """Escape control characters in typer's messages; depending on its version, typer escapes some or none."""
    try:
        yield
    except _TyperUsageError as error:
        # For a command without arguments, typer raises an error whose message is the help.
        if error.ctx is None or error.message != error.ctx.get_help():
            error.message = printable(error.message)
        if "Did you mean" in error.message and hasattr(error, "possibilities"):
            error.possibilities = None  # typer has added a suggestion; click 8.4 would add another
        raise


app = typer.Typer(
    name="tipsseg",
    cls=_Group,
    help=_MAIN_HELP,
    epilog=_MAIN_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # As wide as the terminal; the default stops at 80 columns.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 10_000},
)


def main() -> None:
    # A stream that the caller closed is None; discard its output.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    try:
        app()
    except SystemExit as end:
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            signals.end_soon(int(end.code))
        raise


def print_error(error: TipssegError) -> None:
    """Print an `Error:` line, an optional `Hint:` line and commands to paste to stderr."""
    _print_line(f"Error: {error.message}")
    if error.hint:
        _print_line(f"Hint: {error.hint}")
    for command in error.commands:
        print(f"  {printable(command)}", file=sys.stderr)


def _print_line(text: str) -> None:
    from tipsseg.cli.wording import as_typed  # imports all options, which --help does not need

    print(printable(as_typed(text)), file=sys.stderr)


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
    """Placeholder for a command until it is loaded."""


for _name, _summary in _COMMANDS.items():
    app.command(_name, help=_summary)(_not_loaded)
