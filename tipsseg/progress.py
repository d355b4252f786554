"""What a run says: paths of results on stdout; on stderr a bar where somebody watches, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tipsseg.errors import TipssegError
from tipsseg.files import output_error

if TYPE_CHECKING:
    from tqdm import tqdm

#: Seconds between two lines when stderr is no terminal.
_LINE_EVERY = 30.0


class Progress:
    """Counts images; use as a context manager.

    quiet    leaves out notes and progress, never errors or results
    results  whether paths of finished files go to stdout
    """

    def __init__(self, quiet: bool, *, results: bool = True) -> None:
        self._quiet = quiet
        self._results = results
        self._total: int | None = 0
        self._before = 0
        self._began = self._last_line = time.monotonic()
        self._done = 0
        self._bar: tqdm[None] | None = None

    def without_results(self) -> Progress:
        """Another that says the same, but has no paths on stdout."""
        return Progress(self._quiet, results=False)

    def begin(self, line: str, total: int | None, before: int = 0) -> None:
        """Say what is about to be done, to `total` images, and begin to measure time.

        total   None where it is not known
        before  how many of them are done already, in no time
        """
        self.note(line)
        self._total = total
        self._done = self._before = before
        self._began = self._last_line = time.monotonic()
        if sys.stderr.isatty() and not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=before, unit="image", file=sys.stderr, dynamic_ncols=True)

    def advance(self) -> None:
        """One more image is done, well or badly."""
        self._done += 1
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update()
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.note(status_line(self._done, self._total, now - self._began, self._before))

    def note(self, line: str) -> None:
        """A line on stderr."""
        if not self._quiet:
            self._stderr(line)

    def error(self, error: TipssegError) -> None:
        """The one line that an image costs which cannot be labelled."""
        self._stderr(f"Error: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def results(self, paths: Iterable[Path]) -> None:
        """Paths of finished files on stdout, one a line."""
        for path in paths if self._results else ():
            print_path(path)

    def _stderr(self, line: str) -> None:
        from tqdm import tqdm

        # tqdm.write keeps an open bar below the line.
        tqdm.write(printable(line), file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def print_path(path: Path) -> None:
    """A path on stdout, byte for byte: names need not be valid in the terminal's encoding. Raises OutputError."""
    _print(os.fsencode(path) + b"\n")


def print_text(text: str) -> None:
    """Text on stdout, in UTF-8 whatever the terminal's encoding. Raises OutputError."""
    _print(text.encode("utf-8", "backslashreplace"))


def _print(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # nobody reads any more, which is no error to tell of
    except OSError as error:
        raise output_error(Path("standard output"), error) from error


def printable(text: str) -> str:
    """The text with bytes of file names that are no UTF-8 spelled out, for a terminal."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: "1 image", "2 images"; `plural` where it takes more than an "s"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def status_line(done: int, total: int | None, seconds: float, before: int = 0) -> str:
    """For example "120 of 400 images, 2.4 images/s, about 1:57 left"; the rate is that of the images since `before`."""
    rate = (done - before) / max(seconds, 1e-9)
    if total is None:
        return f"{counted(done, 'image')}, {rate:.1f} images/s"
    return f"{done} of {total} images, {rate:.1f} images/s, about {clock(round((total - done) / max(rate, 1e-9)))} left"


def clock(seconds: int) -> str:
    """Minutes and seconds, or hours, minutes and seconds: "1:57", "2:05:09"."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
