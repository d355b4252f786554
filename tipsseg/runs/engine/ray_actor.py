"""The actor of the Ray engine: it labels batches of images on a cluster machine."""

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
from tipsseg.run.labels import RunContext
from tipsseg.run.results import ImageResult
from tipsseg.run.spec import RunInfo
from tipsseg.runs.engine.engine import LocalEngine
from tipsseg.types import ImageRef


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings that all actors share.

    Attributes:
        info: The run.
        context: The settings of the run for the writers.
        folder: The working directory of the driver, which relative paths refer to.
        version: The driver's version of tipsseg.
    """

    info: RunInfo
    context: RunContext
    folder: Path
    version: str


class LabelActor:
    """Load a model, and label batches of images.

    Methods return TipssegErrors instead of raising them, because Ray would wrap them and lose their attributes.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def start(self) -> RunInfo | TipssegError:
        """Load the model, and return the run with its device and dtype."""
        plan = self._plan
        try:
            change_directory(plan.folder, plan.version)
            silence_decoders()  # this process only serves the run
            self._engine = LocalEngine(plan.info, note=lambda _: None, quiet=True)
            return self._engine.start(plan.context)
        except TipssegError as error:
            return error

    def label(self, refs: Sequence[ImageRef]) -> tuple[ImageResult | TipssegError, ...]:
        """Return the results of the images in order. An error ends the run, and is the last item."""
        results: list[ImageResult | TipssegError] = []
        try:
            with closing(self._engine.results(refs)) as labelled:
                results.extend(labelled)
        except TipssegError as error:
            results.append(error)
        return tuple(results)


def change_directory(folder: Path, version: str) -> None:
    """Change to the driver's working directory, so that relative paths and messages are the same as in a local run.

    Raises UsageError if this machine lacks the directory, or has another version of tipsseg.
    """
    if version != __version__:
        raise UsageError(
            f"{platform.node()} of the Ray cluster has tipsseg {__version__}, but this machine has {version}",
            "Install the same version on all machines of the cluster.",
        )
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"{platform.node()} of the Ray cluster cannot open {folder}: {error.strerror or error}",
            "Run the command in a folder that all machines share; images and output must be shared too.",
        ) from error
