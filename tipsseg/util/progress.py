"""Print results on stdout, and progress on stderr: a bar on a terminal, otherwise a line now and then.

Paths of files, or lines of JSON, go to stdout: to a program as bytes, to a terminal as `printable` text. Errors of images go to
stderr. Lines for people pass through `message_line`, here and in `cli.main`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tipsseg.address import address_text, has_scheme
from tipsseg.errors import ImageError, TipssegError
from tipsseg.util.files import output_error
from tipsseg.util.text import format_duration, message_line, pluralize, printable, printable_lines
from tipsseg.words import NameOf, worded

if TYPE_CHECKING:
    from tqdm import tqdm


#: Seconds between two lines if stderr is not a terminal.
_LINE_EVERY = 30.0

#: The remaining time is printed after this many images, and this many seconds after the first, which waits for the model.
_MIN_IMAGES, _MIN_SECONDS = 3, 5.0

#: A bar without tqdm's estimate of the remaining time, which would be hours while the model loads.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Progress:
    """Count images and print the progress of a run. Use as a context manager.

    Args:
        quiet: Print no notes and no progress, only errors and results.
        results: Print paths of finished files on stdout.
        null: End paths on stdout with NUL instead of a newline.
        jsonl: Print a line of JSON for each image on stdout.
        detailed: Print details too.
        name_of: Returns the names of options in lines for stderr; None for the names in Python.

    The bar never shares a line with other text: it is removed before a line is printed, and drawn again below.
    """

    def __init__(
        self,
        quiet: bool,
        *,
        results: bool = True,
        null: bool = False,
        jsonl: bool = False,
        detailed: bool = False,
        name_of: NameOf | None = None,
    ) -> None:
        self.quiet = quiet
        self.jsonl = jsonl
        self._detailed = detailed
        self._results = results
        self._null = null
        self._name_of = name_of
        self._head = ""
        self._total: int | None = 0
        self._before = 0
        self._began = self._last_line = time.monotonic()
        self._first: float | None = None
        self.done = 0
        self._bar: tqdm[None] | None = None

    def begin(self, line: str, total: int | None, before: int = 0) -> None:
        """Note the start of the work, and start the clock.

        Args:
            line: The note.
            total: The number of images; None if unknown.
            before: The number of images that were done before.
        """
        self.note(line)
        self._total = total
        self.done = self._before = before
        self._began = self._last_line = time.monotonic()
        self._first = None
        if self._shows_bar():
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total,
                initial=before,
                unit="image",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                bar_format=None if total is None else _BAR,
            )

    def _shows_bar(self) -> bool:
        return sys.stderr.isatty() and not self.quiet

    def advance(self) -> None:
        """Count one more image, labelled or failed."""
        self.done += 1
        now = time.monotonic()
        self._first = self._first or now
        remaining = self._remaining(now - self._first)
        if self._bar is not None:
            self._bar.set_postfix_str(remaining, refresh=False)
            self._bar.update()
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            done = pluralize(self.done, "image") if self._total is None else f"{self.done} of {self._total} images"
            rate = (self.done - self._before) / max(now - self._began, 1e-9)
            self.note(f"{done}, {rate:.1f} images/s" + (f", {remaining}" if remaining else ""))

    def _remaining(self, seconds: float) -> str:
        """Return a text such as "about 1:57 left", `seconds` after the first image; "" if it is too early for an estimate."""
        images = self.done - self._before
        if self._total is None or images < _MIN_IMAGES or seconds < _MIN_SECONDS:
            return ""
        return f"about {format_duration(round((self._total - self.done) * seconds / (images - 1)))} left"

    def end(self) -> None:
        """Remove the bar before the last lines. Safe to call twice."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def still(self, line: str) -> None:
        """Note work after the last image, if the last note of this kind, or `end`, was long ago."""
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.note(line)

    def head(self, line: str) -> None:
        """Set the line to print before the first note. A rejected run has no notes, and prints nothing."""
        self._head = line

    def note(self, line: str) -> None:
        if self.quiet:
            return
        if self._head:
            self._stderr(self._head)
            self._head = ""
        self._stderr(line)

    def detail(self, line: str) -> None:
        """Note what few users need to know, if this prints details."""
        if self._detailed:
            self.note(line)

    def error(self, error: TipssegError) -> None:
        """Print the error of an image as one line."""
        self._stderr("Error: " + error.message + (" (" + error.hint + ")" if error.hint else ""))

    def printed(self, error: ImageError) -> ImageError:
        """Return the error as `error` prints it, for errors.jsonl."""
        return ImageError(error.path, self.worded(error.reason), self.worded(error.hint))

    def worded(self, text: str) -> str:
        """Return a text with the names of options as this prints them."""
        return text if self._name_of is None else worded(text, self._name_of)

    def results(self, paths: Iterable[Path]) -> None:
        for path in paths if self._results else ():
            self.path(path)

    def path(self, path: Path) -> None:
        """Print a path on stdout, even if `results` is False."""
        with self._without_bar(sys.stdout.isatty()):
            print_path(path, null=self._null)

    def text(self, text: str) -> None:
        with self._without_bar(sys.stdout.isatty()):
            print_text(text)

    def _stderr(self, line: str) -> None:
        with self._without_bar(True):
            print(message_line(self.worded(line)), file=sys.stderr, flush=True)

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
    """Print nothing, or with `bar` only a bar, on a terminal or in a notebook: library callers get results and errors as values."""

    def __init__(self, *, bar: bool = False) -> None:
        super().__init__(quiet=True, results=False)
        self._with_bar = bar

    def _shows_bar(self) -> bool:
        return self._with_bar and (sys.stderr.isatty() or _is_notebook())

    def error(self, error: TipssegError) -> None:
        """Print nothing; the result has the error."""

    def path(self, path: Path) -> None:
        """Print nothing."""

    def text(self, text: str) -> None:
        """Print nothing."""


#: What functions of the library print: see `progress_for`.
Verbosity = bool | None | Progress


def _is_notebook() -> bool:
    """Return True in a kernel of Jupyter."""
    if (ipython := sys.modules.get("IPython")) is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def progress_for(verbose: Verbosity) -> Progress:
    """Return a Progress that prints on stderr if `verbose`; nothing if it is False; if it is None, only a bar, or itself."""
    if isinstance(verbose, Progress):
        return verbose
    return Progress(quiet=False, results=False, detailed=True) if verbose else Silence(bar=verbose is None)


def print_path(path: Path, *, null: bool = False) -> None:
    """Print a path on stdout: as bytes, because names need not be UTF-8, or `printable` on a terminal, which they could steer.

    `null` ends the path with NUL, because a name may contain line ends. Raise OutputError if this fails.
    """
    # A folder of this machine may be called s3: too.
    text = address_text(path) if has_scheme(path) and not os.path.lexists(path.parts[0]) else str(path)
    _print(os.fsencode(printable(text) if sys.stdout.isatty() else text) + (b"\0" if null else b"\n"))


def print_text(text: str) -> None:
    """Print `printable` lines on stdout, in UTF-8 regardless of the terminal's encoding. Raise OutputError if this fails."""
    _print(printable_lines(text).encode())


def _print(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the reader closed the pipe, which needs no message
    except OSError as error:
        raise output_error(Path("standard output"), error) from error
