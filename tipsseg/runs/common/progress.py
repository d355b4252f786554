"""Print what a run says: paths of results on stdout; on stderr a bar on a terminal, a line now and then elsewhere.

Text for a person passes through `printable`, here and nowhere else; paths on stdout are bytes, for programs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tipsseg.errors import ImageError, TipssegError
from tipsseg.util.files import output_error
from tipsseg.util.printable import clock, counted, printable, printable_lines

if TYPE_CHECKING:
    from tqdm import tqdm

#: Seconds between two lines when stderr is no terminal.
_LINE_EVERY = 30.0

#: The time left is told once so many images, and seconds, have come after the first image, which waits for the model too.
_SOME_IMAGES, _SOME_SECONDS = 8, 5.0

#: A bar without the time left as tqdm reckons it, which is hours while the model is being loaded.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Progress:
    """Count images, and say how a run goes on. Use as a context manager.

    Args:
        quiet: Leaves out notes and progress, never errors or results.
        results: Whether paths of finished files go to stdout.
        null: Whether a NUL ends each path there, in place of a line end.
        wording: Makes of each line for stderr what is printed; by itself a line stays as it is.

    The bar never shares a line with anything else: it is taken off the terminal before a line is printed, and drawn again
    below it.
    """

    def __init__(
        self, quiet: bool, *, results: bool = True, null: bool = False, wording: Callable[[str], str] = str
    ) -> None:
        self._quiet = quiet
        self._results = results
        self._null = null
        self._wording = wording
        self._head = ""
        self._total: int | None = 0
        self._before = 0
        self._began = self._last_line = time.monotonic()
        self._first: float | None = None
        self._done = 0
        self._bar: tqdm[None] | None = None

    def without_results(self) -> Progress:
        return Progress(self._quiet, results=False, wording=self._wording)

    def begin(self, line: str, total: int | None, before: int = 0) -> None:
        """Say what is about to be done, and begin to measure time.

        Args:
            line: What is said.
            total: How many images there are; None where that is not known.
            before: How many of them are done already, in no time.
        """
        self.note(line)
        self._total = total
        self._done = self._before = before
        self._began = self._last_line = time.monotonic()
        self._first = None
        if sys.stderr.isatty() and not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=before,
                unit="image",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                bar_format=None if total is None else _BAR,
            )

    def advance(self) -> None:
        """Count one more image that is done, well or badly."""
        self._done += 1
        now = time.monotonic()
        self._first = self._first or now
        left = self._time_left(now - self._first)
        if self._bar is not None:
            self._bar.set_postfix_str(left, refresh=False)
            self._bar.update()
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            done = counted(self._done, "image") if self._total is None else f"{self._done} of {self._total} images"
            rate = (self._done - self._before) / max(now - self._began, 1e-9)
            self.note(f"{done}, {rate:.1f} images/s" + (f", {left}" if left else ""))

    def _time_left(self, seconds: float) -> str:
        """Write, for example, "about 1:57 left", so many seconds after the first image was done; "" while that would be a guess."""
        images = self._done - self._before - 1
        if self._total is None or images < _SOME_IMAGES or seconds < _SOME_SECONDS:
            return ""
        return f"about {clock(round((self._total - self._done) * seconds / images))} left"

    def end(self) -> None:
        """Take the bar away: what follows are the last lines. Safe to call twice."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def still(self, line: str) -> None:
        """Note work that goes on behind the images, if the last such line, or `end`, was long ago."""
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.note(line)

    def head(self, line: str) -> None:
        """Set the line that comes before the first note; without a note, as if a run is refused, it is not printed."""
        self._head = line

    def note(self, line: str) -> None:
        if self._quiet:
            return
        if self._head:
            self._stderr(self._head)
            self._head = ""
        self._stderr(line)

    def error(self, error: TipssegError) -> None:
        """Print one line for an image that cannot be labelled."""
        self._stderr(f"Error: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def worded(self, error: ImageError) -> ImageError:
        """Return the error in the words that `error` prints, for a record that people read."""
        return ImageError(error.path, self._wording(error.reason), self._wording(error.hint))

    def results(self, paths: Iterable[Path]) -> None:
        for path in paths if self._results else ():
            self.path(path)

    def path(self, path: Path) -> None:
        """Print a path on stdout, whatever else goes there."""
        with self._without_bar(sys.stdout.isatty()):
            print_path(path, null=self._null)

    def text(self, text: str) -> None:
        with self._without_bar(sys.stdout.isatty()):
            print_text(text)

    def _stderr(self, line: str) -> None:
        with self._without_bar(True):
            print(printable(self._wording(line)), file=sys.stderr, flush=True)

    @contextmanager
    def _without_bar(self, seen: bool) -> Iterator[None]:
        if self._bar is None or not seen:
            yield
            return
        with self._bar.external_write_mode(file=sys.stderr):
            sys.stderr.flush()
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Silence(Progress):
    """Say nothing at all: for programs, which have the results and the errors themselves."""

    def __init__(self) -> None:
        super().__init__(quiet=True, results=False)

    def without_results(self) -> Progress:
        return Silence()

    def error(self, error: TipssegError) -> None:
        """Leave the error to whoever takes the results."""

    def text(self, text: str) -> None:
        """Print nothing."""


def print_path(path: Path, *, null: bool = False) -> None:
    """Print a path on stdout, byte for byte: names need not be valid in the terminal's encoding. Raises OutputError.

    `null` ends it with a NUL, as a name may have line ends in it.
    """
    _print(os.fsencode(path) + (b"\0" if null else b"\n"))


def print_text(text: str) -> None:
    """Print lines on stdout, as `printable`, in UTF-8 whatever the terminal's encoding. Raises OutputError."""
    _print(printable_lines(text).encode())


def _print(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # nobody reads any more, which is no error to tell of
    except OSError as error:
        raise output_error(Path("standard output"), error) from error
