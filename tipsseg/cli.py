"""The command line: joins the commands, and is the only place that prints errors."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tipsseg.commands import check, convert, doctor, evaluate, label, merge, vocab, weights
from tipsseg.errors import TipssegError
from tipsseg.progress import printable

_MAIN_HELP = "Label every pixel of images with your own phrases, by TIPSv2."

_MAIN_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg weights download l14
  tipsseg label --help
"""


class _Group(TyperGroup):
    """Turns expected errors into `Error:` and `Hint:` lines and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TipssegError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            number = interrupt.number if isinstance(interrupt, _Stopped) else signal.SIGINT
            what = "Interrupted" if number == signal.SIGINT else "Terminated"
            print(f"{': '.join([what, *getattr(interrupt, '__notes__', ())])}.", file=sys.stderr)
            raise typer.Exit(128 + number) from None


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
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `tipsseg` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a background job of a shell, or nohup
            signal.signal(number, _stop)
    # A stream that the caller closed is None here; printing to it should do nothing.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    app()


def print_error(error: TipssegError) -> None:
    """`Error:` and, where there is one, `Hint:`, on stderr."""
    print(f"Error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {printable(error.hint)}", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tipsseg import __version__

        print(f"tipsseg {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command(epilog=label.EPILOG, no_args_is_help=True)(label.label)
app.command(epilog=convert.EPILOG, no_args_is_help=True)(convert.convert)
app.command(epilog=merge.EPILOG, no_args_is_help=True)(merge.merge)
app.command(epilog=check.EPILOG, no_args_is_help=True)(check.check)
app.command("eval", epilog=evaluate.EPILOG, no_args_is_help=True)(evaluate.evaluate)
app.add_typer(vocab.app, name="vocab")
app.add_typer(weights.app, name="weights")
app.command()(doctor.doctor)
