"""Engines label the images of a run: the protocol, and the engine of this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from tipsseg.errors import OutputError
from tipsseg.run.folder import OutputFolder
from tipsseg.run.labels import RunContext
from tipsseg.run.results import ImageResult, Left
from tipsseg.run.shards import shards_in
from tipsseg.run.spec import RunInfo
from tipsseg.runs.common.progress import Progress
from tipsseg.types import ImageRef
from tipsseg.util.printable import shell_word


class Engine(Protocol):
    """Label images and write their per-image files."""

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        """Load the model, and return the run with its device, dtype and vocabulary. Call it once, before `results`.

        Args:
            context: The settings of the run for the writers.
            images: The first images, which help to choose the device if it is "auto"; see `load_for`.

        Raises:
            TipssegError: The run cannot continue.
        """

    def batch_size(self) -> int | None:
        """Return the number of windows in a batch, which shrinks if memory is short; None if unknown."""

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image, in the order of `items`. Raises TipssegError if the run cannot continue."""


#: A function that makes the engine of a run, once its output folder is open.
EngineMaker = Callable[[OutputFolder, Progress], AbstractContextManager[Engine]]


class LocalEngine:
    """Label images in this process."""

    def __init__(self, info: RunInfo, *, note: Callable[[str], None], quiet: bool = False) -> None:
        """Set up the engine without loading the model.

        Args:
            info: The planned run, see `plan_run`.
            note: Prints notes.
            quiet: Hide the progress of a model download.
        """
        self._info = info
        self._note = note
        self._quiet = quiet

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        from tipsseg.runs.engine.label_task import make_label_task
        from tipsseg.runs.engine.loading import load_for
        from tipsseg.runs.engine.raster_task import RasterTask

        spec = self._info.spec
        loaded = load_for(self._info, self._note, quiet=self._quiet, images=images)
        #: The task of this run, for callers that wrap it.
        self.task = make_label_task(loaded, spec.fitted or spec.vocabulary, context)
        self._backbone, labeller = loaded.model.backbone, self.task.labeller
        self._raster = RasterTask(labeller, loaded.info, context, self._note) if spec.is_raster else None
        return replace(loaded.info, vocabulary=labeller.vocabulary, dropped=labeller.dropped)

    def batch_size(self) -> int | None:
        return self._backbone.batch_size

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        from tipsseg.runs.engine.pipeline import run_tasks

        if self._raster is not None:
            return self._raster.results(items)
        return run_tasks(items, self.task, self._info.spec.jobs)


def local_engine(folder: OutputFolder, progress: Progress) -> AbstractContextManager[Engine]:
    """Return the engine of this process. Raises OutputError if the folder holds shards, and the run is not one of them."""
    if folder.info.spec.shard is None and shards_in(folder.path):
        word = shell_word(str(folder.path))
        raise OutputError(folder.path, "it holds shards", f"Join them first: tipsseg merge {word} -o {word}")
    return nullcontext(LocalEngine(folder.info, note=progress.note, quiet=progress.quiet))
