"""Entry point of the command line: load the command, print its errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Annotated, Any

import typer

from tipsseg.cli.groups import FLAGS, Group, flags_of, typer_errors_printable
from tipsseg.errors import NameOf, PluginError, TipssegError, UsageError, worded
from tipsseg.plugins import LISTED, load_plugin, names
from tipsseg.util.text import message_line, printable, quote, shell_line

_MAIN_HELP = "Zero-shot semantic segmentation of images, with classes in your own words."

_MAIN_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda/leg,tree"
  tipsseg weights download l14
  tipsseg label --help
"""

#: Commands and their summaries in --help. Each command is a module of the package verbs, or a plugin's (see `listed_commands`).
_COMMANDS: Mapping[str, str] = {
    "label": "Label images and write masks, COCO annotations and overlays.",
    "encode": "Store image features, to label the images again without encoding.",
    "convert": "Write existing labels in more formats, or as a data set.",
    "correct": "Import corrections from CVAT, LabelMe, Label Studio or the page.",
    "fit": "Learn classes from corrected masks, for label --vocab.",
    "merge": "Join the output folders of several machines or runs.",
    "check": "Verify the files of an output folder.",
    "rank": "List the images to review first.",
    "eval": "Score labels against ground-truth masks: mean IoU.",
    "vocab": "List, print and check vocabularies (class lists).",
    "weights": "Download and verify model weights.",
    "doctor": "Check this installation: packages, devices, weights.",
}

#: The verbs of each command, several for a group of commands.
_VERBS: Mapping[str, tuple[str, ...]] = {
    "check": ("check_folder",),
    "convert": ("convert_folder",),
    "correct": ("correct_folder",),
    "doctor": ("doctor",),
    "encode": ("iter_encode_folder",),
    "eval": ("score_masks",),
    "fit": ("fit_folder",),
    "label": ("iter_label_folder",),
    "merge": ("merge_folders",),
    "rank": ("iter_ranked",),
    "vocab": ("list_presets", "show", "check"),
    "weights": ("list_weights", "download", "verify", "lock", "show_path"),
}


def listed_commands() -> dict[str, str]:
    """Return all commands with their summaries, in the order of --help. A command of somebody else has none until it is loaded."""
    commands = [*_COMMANDS.items()]
    for name in (name for name in names("verb") if name not in _COMMANDS):
        after, summary = LISTED.get(name) or (commands[-1][0], "")
        place = next(place for place, (other, _) in enumerate(commands, start=1) if other == after)
        commands.insert(place, (name, summary))
    return dict(commands)


def functions_of(name: str) -> tuple[Callable[..., Any], ...]:
    """Return the verbs of a command, several for a group of commands. Raise PluginError if a plugin cannot be loaded."""
    if name in _COMMANDS:
        module = import_module(f"tipsseg.verbs.{name}")
        return tuple(getattr(module, each) for each in _VERBS[name])
    found = load_plugin("verb", name)
    return found if isinstance(found, tuple) else (found,)


#: Names options for messages outside any command.
_FLAGS_OF_ALL = flags_of({})

#: Seconds after an interrupted command in which threads may end.
_GRACE_SECONDS = 3


class _Main(Group):
    """Load the command that the user names. Print expected errors as `Error:` and `Hint:` lines, and set the exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # Importing all commands with their options would take 0.45 times as long as importing typer.
        _refuse_paths(ctx, args)
        if args[0] in self.commands:
            from tipsseg.cli.verbs import commands_of

            try:
                functions = functions_of(args[0])
            except PluginError:
                if ctx.resilient_parsing:  # completion must not raise
                    return super().resolve_command(ctx, args)
                raise
            summary = self.commands[args[0]].help or (functions[0].__doc__ or "").partition("\n")[0]
            self.commands[args[0]] = typer.main.get_command(commands_of(summary, *functions))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for name in (name for name in names("verb") if name not in {*LISTED, *_COMMANDS}):
            try:
                self.commands[name].help = functions_of(name)[0].__doc__
            except PluginError as error:  # the other commands work
                self.commands[name].help = f"Cannot be loaded: {error.place}"
        super().format_help(ctx, formatter)

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _interruption_told():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _interruption_told(), typer_errors_printable():
                return super().invoke(ctx)
        except TipssegError as error:
            print_error(error, ctx.meta.get(FLAGS, _FLAGS_OF_ALL))
            raise typer.Exit(error.exit_code) from error


@contextmanager
def _interruption_told() -> Iterator[None]:
    """Print how far an interrupted command came, and set its exit code. Typer would print "Aborted"."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        what = "Interrupted" if number == signal.SIGINT else "Terminated"
        _print_line(": ".join([what, *getattr(interrupt, "__notes__", ())]) + ".")
        raise typer.Exit(128 + number) from None


def _refuse_paths(ctx: Any, args: list[str]) -> None:
    """Raise UsageError for images instead of a command. Typer itself reports other words, and suggests similar commands."""
    first = args[0]
    if ctx.resilient_parsing or get_close_matches(first, listed_commands(), n=1):  # completion must not raise
        return
    if first == "-" or os.path.lexists(first) or not {"-c", "--classes", "--vocab"}.isdisjoint(args):
        line = shell_line(["tipsseg", "label", *args])
        raise UsageError(f"missing command: {quote(first)} is not a command", f"Run: {line}")


app = typer.Typer(
    name="tipsseg",
    cls=_Main,
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
            # Python waits for its threads, but one may wait for a server.
            timer = Timer(_GRACE_SECONDS, os._exit, [end.code])
            timer.daemon = True
            timer.start()
        raise


def print_error(error: TipssegError, name_of: NameOf = _FLAGS_OF_ALL) -> None:
    """Print an `Error:` line, an optional `Hint:` line and commands to paste to stderr."""
    _print_line(f"Error: {worded(error.message, name_of)}")
    if error.hint:
        _print_line(f"Hint: {worded(error.hint, name_of)}")
    for command in error.commands:
        print(f"  {printable(command)}", file=sys.stderr)


def _print_line(text: str) -> None:
    print(message_line(text), file=sys.stderr)


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


for _name, _summary in listed_commands().items():
    app.command(_name, help=_summary)(_not_loaded)
