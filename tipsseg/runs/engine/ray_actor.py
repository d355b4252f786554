"""The part of the engine "ray" that runs in the actors of a Ray cluster: images in, their results out."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tipsseg._version import __version__
from tipsseg.errors import TipssegError, UsageError
from tipsseg.images.pillow import silence_decoders
from tipsseg.runs.engine.engine import LocalEngine
from tipsseg.store.results import ImageResult
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef


@dataclass(frozen=True, slots=True)
class Plan:
    """What every actor is told.

    Attributes:
        info: The run.
        context: What the writers have to know of it.
        folder: The current folder of the process that asks. Relative paths begin there.
        version: Of tipsseg in that process.
    """

    info: RunInfo
    context: RunContext
    folder: Path
    version: str


class LabelActor:
    """Holds a model, and labels one batch of images after the other.

    Errors that a user can mend are returned: Ray would wrap them, and lose what they carry.
    """

    def __init__(self, plan: Plan) -> None:
        """Nothing is loaded yet."""
        self._plan = plan

    def start(self) -> RunInfo | TipssegError:
        """Load the model; returns what the run came to by that."""
        plan = self._plan
        try:
            enter(plan.folder, plan.version)
            silence_decoders()  # this process is the run's own
            self._engine = LocalEngine(plan.info, quiet=True)
            return self._engine.start(plan.context)
        except TipssegError as error:
            return error

    def label(self, refs: Sequence[ImageRef]) -> tuple[ImageResult | TipssegError, ...]:
        """The results of the images, in order; an error in the place of one ends the run there."""
        results: list[ImageResult | TipssegError] = []
        try:
            with closing(self._engine.results(refs)) as labelled:
                results.extend(labelled)
        except TipssegError as error:
            results.append(error)
        return tuple(results)


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
