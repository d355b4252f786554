"""Count and print results on stdout, and progress on stderr: a bar on a terminal, otherwise a line now and then.

Paths of files, or lines of JSON, go to stdout as bytes, for programs; errors of images go to stderr. Only this module passes text
for people through `printable`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tipsseg.address import address_text, is_url
from tipsseg.errors import ImageError, TipssegError
from tipsseg.formats.pictures import Overlay
from tipsseg.run.results import Labelled, Unchanged
from tipsseg.run.spec import Counts
from tipsseg.run.summary import image_summary
from tipsseg.types import Failed
from tipsseg.util.files import output_error
from tipsseg.util.json import json_bytes
from tipsseg.util.text import format_duration, pluralize, printable, printable_lines

if TYPE_CHECKING:
    from tqdm import tqdm


#: Seconds between two lines if stderr is not a terminal.
_LINE_EVERY = 30.0

#: The remaining time is printed only after this many images and seconds, counted from the first image, which waits for the model.
_MIN_IMAGES, _MIN_SECONDS = 8, 5.0

#: A bar without tqdm's estimate of the remaining time, which would be hours while the model loads.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Progress:
    """Count images and print the progress of a run. Use as a context manager.

    Args:
        quiet: Print no notes and no progress, only errors and results.
        results: Print paths of finished files on stdout.
        null: End paths on stdout with NUL instead of a newline.
        wording: A function that every line for stderr passes through.

    The bar never shares a line with other text: it is removed before a line is printed, and drawn again below.
    """

    def __init__(
        self, quiet: bool, *, results: bool = True, null: bool = False, wording: Callable[[str], str] = str
    ) -> None:
        self.quiet = quiet
        self._results = results
        self._null = null
        self._wording = wording
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
        if sys.stderr.isatty() and not self.quiet:
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
        images = self.done - self._before - 1
        if self._total is None or images < _MIN_IMAGES or seconds < _MIN_SECONDS:
            return ""
        return f"about {format_duration(round((self._total - self.done) * seconds / images))} left"

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
        """Set the line to print before the first note. A refused run has no notes, and prints nothing."""
        self._head = line

    def note(self, line: str) -> None:
        if self.quiet:
            return
        if self._head:
            self._stderr(self._head)
            self._head = ""
        self._stderr(line)

    def error(self, error: TipssegError) -> None:
        """Print the error of an image as one line."""
        self._stderr(f"Error: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def worded(self, error: ImageError) -> ImageError:
        """Return the error as `error` prints it, for errors.jsonl."""
        return ImageError(error.path, self._wording(error.reason), self._wording(error.hint))

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
    """Print nothing: library callers get results and errors as values."""

    def __init__(self) -> None:
        super().__init__(quiet=True, results=False)

    def error(self, error: TipssegError) -> None:
        """Print nothing; the result has the error."""

    def text(self, text: str) -> None:
        """Print nothing."""


def print_path(path: Path, *, null: bool = False) -> None:
    """Print a path on stdout as bytes, because names may be invalid in the terminal's encoding. Raise OutputError if this fails.

    `null` ends the path with NUL, because a name may contain line ends.
    """
    text = address_text(path) if is_url(path) else path
    _print(os.fsencode(text) + (b"\0" if null else b"\n"))


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


class Reporter:
    """Count and print results.

    Attributes:
        progress: Prints results and notes.
        counts: The results so far; `labelled` counts the images that this run labelled.
        began: The time.monotonic() at which labelling began.
        shown: The first overlay, unless lines of JSON are printed.
    """

    def __init__(self, progress: Progress, *, jsonl: bool = False) -> None:
        """Set up the reporter. With `jsonl`, print a line of JSON instead of paths."""
        self.progress, self.counts = progress, Counts()
        self.began = time.monotonic()
        self.shown: Path | None = None
        self._jsonl = jsonl
        self._failed = set[Path]()

    def report(self, result: Labelled | Unchanged | Failed) -> None:
        """Count and print a recorded result. Raise OutputError if stdout is closed."""
        counts = self.counts
        if isinstance(result, Failed):
            self._fail(result.error)
        elif isinstance(result, Unchanged):
            self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(result.edited))
            self._print(result)
        else:
            self.counts = replace(counts, labelled=counts.labelled + 1)
            self._print(result)
        self.progress.advance()

    def report_derived(self, found: list[Path] | ImageError) -> None:
        """Print derived files of an image that are new, or count and print an error, unless it was before."""
        if isinstance(found, ImageError):
            if found.path not in self._failed:
                self._fail(found)
        elif not self._jsonl:
            self.progress.results(found)

    def _fail(self, error: ImageError) -> None:
        self.counts = replace(self.counts, failed=self.counts.failed + 1)
        self._failed.add(error.path)
        self.progress.error(error)

    def interruption(self, command: str) -> str:
        """Return the message for an interrupted run; `command` is the one that resumes it."""
        counts = self.counts
        done = max(
            counts.labelled + counts.unchanged, self.progress.done - counts.failed
        )  # with Ray, more than was reported
        return f"{pluralize(done, 'image')} done; run {command} to resume"

    def _print(self, result: Labelled | Unchanged) -> None:
        if self._jsonl:
            record = image_summary(result.ref, result.entry.summary, result.files, result.reason)
            self.progress.text(json_bytes(record).decode() + "\n")
        else:
            self.shown = self.shown or result.files.get(Overlay.name)
            self.progress.results(path for path in result.files.values() if path.exists())
