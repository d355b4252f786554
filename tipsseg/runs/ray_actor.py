"""The part of `--engine ray` that runs in the actors of a Ray cluster: a batch of images in, what became of them out.

Both travel as one value of bytes in a table of one row, as that is what Ray Data carries.
"""

from __future__ import annotations

import os
import pickle
import platform
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsseg import __version__
from tipsseg.errors import TipssegError, UsageError
from tipsseg.formats.base import RunContext
from tipsseg.images.pillow import silence_decoders
from tipsseg.runs.engine import LocalEngine
from tipsseg.store.results import ImageResult
from tipsseg.store.spec import RunInfo
from tipsseg.types import ImageRef

if TYPE_CHECKING:
    import pyarrow

_COLUMN = "value"


@dataclass(frozen=True, slots=True)
class Plan:
    """What every actor is told.

    folder   the current folder of the process that asks; relative paths begin there
    version  of tipsseg in that process
    """

    info: RunInfo
    context: RunContext
    folder: Path
    version: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to be labelled; `first` is the number of the first, from 0 over the run. Without images it asks for the RunInfo."""

    first: int
    refs: tuple[ImageRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch.

    first     the number of the batch's first image
    outcomes  of its images, in order; an error in the place of one ended the run there
    started   the answer to a batch without images
    ran_on    device and dtype; None where the actor could not start
    """

    first: int
    outcomes: tuple[ImageResult | TipssegError, ...] = ()
    started: RunInfo | None = None
    ran_on: tuple[str, str] | None = None


class LabelActor:
    """Holds a model, and labels one batch after the other: the class that Ray Data makes its actors of."""

    def __init__(self, plan: Plan) -> None:
        """Load the model. What goes wrong is the answer to the first batch: Ray would only say that an actor could not be made."""
        self._failure: Exception | None = None
        try:
            _refuse_rebirth()
            enter(plan.folder, plan.version)
            silence_decoders()  # this process is the run's own
            self._engine = LocalEngine(plan.info, quiet=True)
            self._started = self._engine.start(plan.context)
        except Exception as error:
            self._failure = error

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The Answer to the Batch in `table`; see `to_table`."""
        return to_table(self._answer(from_table(table)))

    def _answer(self, batch: Batch) -> Answer:
        if isinstance(self._failure, TipssegError):
            return Answer(batch.first, (self._failure,))
        if self._failure is not None:
            raise self._failure
        ran_on = (self._started.device, self._started.dtype)
        if not batch.refs:
            return Answer(batch.first, (), self._started, ran_on)
        outcomes: list[ImageResult | TipssegError] = []
        try:
            with closing(self._engine.results(batch.refs)) as labelled:
                outcomes.extend(labelled)
        except TipssegError as error:
            outcomes.append(error)
        return Answer(batch.first, tuple(outcomes), None, ran_on)


def to_table(value: Batch | Answer) -> pyarrow.Table:
    """A table of one row that holds the value."""
    import pyarrow

    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return pyarrow.table({_COLUMN: pyarrow.array([data], pyarrow.large_binary())})


def from_table(table: pyarrow.Table) -> Any:
    """The value in a table made by `to_table`."""
    (value,) = table.column(_COLUMN).to_pylist()
    return pickle.loads(value)


def _refuse_rebirth() -> None:
    """Raise TipssegError in an actor that Ray made anew because it had died: what killed it would kill it again, without end."""
    import ray

    if ray.get_runtime_context().was_current_actor_reconstructed:
        raise TipssegError(
            f"an actor died while it labelled images, and Ray made it anew on {platform.node()}",
            "It may have run out of memory; what is done stays, and the same command goes on from there.",
        )


def enter(folder: Path, version: str) -> None:
    """Be in the folder that relative paths begin at, so that they, and what is said of them, are the same as in a local run.

    Raises UsageError where it is not on this machine, and where that has another version of tipsseg.
    """
    if version != __version__:
        raise UsageError(
            f"{platform.node()} of the Ray cluster has tipsseg {__version__}, and this is {version}",
            "Install the same version on all its machines.",
        )
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} is not on {platform.node()} of the Ray cluster: {error.strerror or error}",
            "Run the command in a folder that all its machines share, as they have to share images and output.",
        ) from error
