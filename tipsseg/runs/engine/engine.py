"""What labels the images of a run: this process, or others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from tipsseg.label_map import LabelMap
from tipsseg.store.results import ImageResult, Left
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import cache_folder


class Engine(Protocol):
    """Labels images and writes their per-image files."""

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        """Get the model ready, and return what the run came to by that. Call it once, before `results`.

        Args:
            context: What the writers have to know of the run.
            images: Images to come, by which device "auto" is chosen, see `load_for`.

        Raises:
            TipssegError: For what ends the run.
        """

    def batch_size(self) -> int | None:
        """How many windows make a batch, after batches were halved for want of memory; None where that is not known."""

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """The result of each image, in the order of `items`. Raises TipssegError for what ends the run."""


class LocalEngine:
    """Labels images in this process."""

    def __init__(
        self,
        info: RunInfo,
        *,
        inspect: Callable[[ImageRef, LabelMap], None] | None = None,
        note: Callable[[str], None] | None = None,
        quiet: bool = False,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            info: The run, as `plan_run` gives it.
            inspect: Sees each image's labels before anything is written, in one of several threads; it may raise ImageError.
            note: Takes lines on what a user may want to change.
            quiet: Whether a download of the model shows no progress.
        """
        self._info = info
        self._inspect = inspect
        self._note = note
        self._quiet = quiet

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        """Load the model, see Engine."""
        from tipsseg.labelling.labeller import Labeller
        from tipsseg.labelling.scoring.compiled.match import to_be_compiled
        from tipsseg.runs.engine.label_task import LabelTask
        from tipsseg.runs.engine.loading import load_for

        spec = self._info.spec
        cache = cache_folder() if spec.use_cache else None
        loaded = load_for(self._info, self._note, quiet=self._quiet, images=images)
        labeller = Labeller(loaded.model, spec.fitted or spec.vocabulary, spec.options, cache=cache)
        info = replace(loaded.info, vocabulary=labeller.vocabulary, dropped=labeller.dropped)
        self._task = LabelTask(
            labeller, spec.formats, context, info.digest, self._inspect, spec.max_pixels, loaded.store, loaded.digests
        )
        self._backbone = loaded.model.backbone
        if self._note is not None and labeller.scores_windows and to_be_compiled():
            self._note("numba compiles the loops that make labels. It takes some seconds, and is done once.")
        return info

    def batch_size(self) -> int | None:
        """The batch size of the model, see Engine."""
        return self._backbone.batch_size

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Label the images, see Engine."""
        from tipsseg.runs.engine.pipeline import run_tasks

        return run_tasks(items, self._task, self._info.spec.jobs)
