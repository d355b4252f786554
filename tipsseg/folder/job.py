"""The way of a command through images: what all commands do with results and failures."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TypeVar

from tipsseg.errors import ImageError, InputError
from tipsseg.say import Progress
from tipsseg.types import Failed
from tipsseg.util.text import pluralize

_Result = TypeVar("_Result")


class Job:
    """The way of a command through images: count them, and print the failures.

    Attributes:
        done: The number of results.
        failed: The number of failures.
        first: The first failure.
    """

    def __init__(self, progress: Progress, *, resumes: bool = False, names_failures: bool = True) -> None:
        """Set up the counts; `resumes` is True if the same command goes on after an interruption."""
        self.progress, self.done, self.failed = progress, 0, 0
        self._resumes, self._names_failures = resumes, names_failures
        self.first: ImageError | None = None

    def each(self, items: Generator[_Result | Failed, None, None]) -> Iterator[_Result]:
        """Yield the results among items, and print the failures. Close the items."""
        return (item for item in self.outcomes(items) if not isinstance(item, Failed))

    def outcomes(self, items: Generator[_Result | Failed, None, None]) -> Iterator[_Result | Failed]:
        """Yield items, and print the failures among them. Close the items."""
        try:
            with closing(items):
                for item in items:
                    if isinstance(item, Failed):
                        self.failed += 1
                        self.first = self.first or item.error
                        if self._names_failures:
                            self.progress.error(item.error)
                    else:
                        self.done += 1
                    yield item
                    self.progress.advance()
        except KeyboardInterrupt as interrupt:
            if self._resumes:
                interrupt.add_note(f"{pluralize(self.done, 'image')} done; run the same command to resume")
            raise
        self.progress.end()

    def require(self, number: int, done: str) -> None:
        """Raise InputError if nothing was done because images failed; `done` is the verb."""
        if not number and self.first is not None:
            raise InputError(f"no image was {done}; the first failure: " + self.first.message, self.first.hint)
