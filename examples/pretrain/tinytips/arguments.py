"""What the commands of this folder share: counts on the command line, and how they say what went wrong or was stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tipsseg.errors import TipssegError


def positive(text: str) -> int:
    """A count of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


@contextmanager
def told(parser: argparse.ArgumentParser) -> Iterator[None]:
    """What went wrong inside is said in a line, and ends the command with 2."""
    try:
        yield
    except TipssegError as error:
        parser.error(f"{error.message}. {error.hint}".rstrip())


def stoppable(main: Callable[[], None]) -> None:
    """Run a command whose work is kept as it goes, and say so where Ctrl-C ends it, with 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last line of the log", file=sys.stderr)
        sys.exit(130)
