"""A `tipsseg label` run: skip finished images, label the rest, record the results, and bring the derived files up to date."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tipsseg.address import address_text
from tipsseg.errors import ImageError
from tipsseg.formats.overlay import Overlay
from tipsseg.run.folder import OutputFolder, open_folder
from tipsseg.run.results import Failed, ImageResult, Labelled
from tipsseg.run.settle import Settled, settle_images
from tipsseg.run.spec import Counts, RunInfo
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.notes import (
    ImageNotes,
    note_begin,
    note_division,
    note_edited,
    note_end,
    note_folder,
    note_formats,
    note_given,
    note_reasons,
    note_settled,
    note_skipped,
)
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.engine.engine import Engine, EngineMaker
from tipsseg.types import ImageRef
from tipsseg.util.printable import shell_word


class LabelRun:
    """Label the images that are not labelled yet, and write the output folder.

    Attributes:
        counts: The results so far.
        interruption: The message if the run was interrupted while it labelled; otherwise "".
    """

    def __init__(
        self, info: RunInfo, images: Images, make_engine: EngineMaker, progress: Progress, *, jsonl: bool = False
    ) -> None:
        """Set up a run.

        Args:
            info: The run, from `plan_run`.
            images: The images, from `find_images`.
            make_engine: Makes the engine that labels images, see `engine_maker`.
            progress: Prints results and notes.
            jsonl: Print a line of JSON per image instead of the paths of its files.
        """
        self.counts = Counts()
        self.interruption = ""
        self._info = info
        self._images = images
        self._make_engine = make_engine
        self._progress = progress
        self._jsonl = jsonl
        self._reporter = Reporter(progress, jsonl=jsonl)
        self._shown: Path | None = None  # the first overlay
        self._failed = set[Path]()  # what was reported, as settling finds it again

    def results(self) -> Generator[ImageResult, None, None]:
        """Yield the result of every image once its labels are recorded. Call this once.

        A bad image is a Failed. Close the generator to stop early; another run resumes.

        Raises:
            TipssegError: The run cannot continue.
        """
        note_given(self._info.spec, self._images.known, self._progress)
        with open_folder(self._info) as folder:
            note_folder(folder, self._images, self._progress)
            try:
                with ExitStack() as stack:
                    yield from self._label(folder, stack)
            except (KeyboardInterrupt, GeneratorExit):
                self.interruption = self._reporter.interruption(self._resuming_command())
                raise
            finally:
                self.counts = self._reporter.counts
        if self._shown is not None and not self._jsonl:
            self._progress.note(f"Open {self._shown} to see the labels.")

    def _label(self, folder: OutputFolder, stack: ExitStack) -> Generator[ImageResult, None, None]:
        """Yield finished images, label the rest, and bring the derived files up to date."""
        progress, images, began = self._progress, self._images, time.monotonic()
        notes = ImageNotes(self._info.model, progress)
        items = map(folder.triage, images.refs)
        first, batch_size = None, None  # the model is loaded for the first image that needs it
        for item in items:
            if isinstance(item, ImageRef):
                first = item
                break
            yield self._report(folder, item, notes)
        if first is not None or folder.before is None:
            engine = stack.enter_context(self._make_engine(folder, progress, _images_from(images, first)))
            note_begin(begin(engine, images, folder), images, self._reporter.counts, progress)
            if first is not None:
                note_formats(folder.context.formats, folder.context.files, folder.context.classes, progress)
                began = time.monotonic()
                with closing(engine.results(chain([first], items))) as results:
                    for result in results:
                        yield self._report(folder, result, notes)
                batch_size = engine.batch_size
        elif not folder.begun or folder.before.image_root != address_text(images.root):
            folder.begin(replace(folder.info, image_root=address_text(images.root), started=datetime.now(UTC)))
        self._end(folder, notes, batch_size, began)

    def _report(self, folder: OutputFolder, result: ImageResult, notes: ImageNotes) -> ImageResult:
        """Record a result in the folder, print it, and return it; an image fails if another file is in the way of its mask."""
        result = folder.record(result)
        if isinstance(result, Failed):
            self._failed.add(result.error.path)
            result = replace(result, error=self._progress.worded(result.error))
            folder.fail(result)
        else:
            if isinstance(result, Labelled):
                notes.add(result)
            result = replace(result, files=folder.shown_files(result.ref.name))
            self._shown = self._shown or result.files.get(Overlay.name)
        self._reporter.report(result)
        return result

    def _end(self, folder: OutputFolder, notes: ImageNotes, batch_size: int | None, began: float) -> None:
        """Settle the folder, write the last records, and note the totals; `began` is the time when labelling began."""
        spec, progress, reporter = folder.info.spec, self._progress, self._reporter
        counts = reporter.counts
        settled = Settled()
        for found in settle_images(folder, settled, spec.jobs):
            if isinstance(found, ImageError):
                if found.path not in self._failed:
                    counts = replace(counts, failed=counts.failed + 1)
                    progress.error(found)
            elif not self._jsonl:
                progress.results(found)
        if not folder.finished:
            folder.finish(counts, batch_size)
        progress.end()
        progress.results(folder.run_paths)
        notes.end()
        note_reasons(folder.reasons, progress)
        note_settled(folder, settled, progress)
        if spec.given is not None and spec.given.labels is not None:
            note_skipped(spec.given.labels.skipped, spec.onto, progress)
        note_division(spec.formats, folder.state, folder.context.files, progress)
        note_edited(folder.info, counts, progress)
        for line in folder.totals().lines():
            progress.note(line)
        note_end(progress, counts, time.monotonic() - began, f", into {spec.folder}")
        if spec.shard is not None:
            word = shell_word(str(spec.output))
            progress.note(f"Part {spec.shard} is done. When all are: tipsseg merge {word} -o {word}")
        reporter.counts = replace(counts, failed=counts.failed + len(folder.unwritten))  # for the exit code

    def _resuming_command(self) -> str:
        spec = self._info.spec
        return "the same command" if spec.resume else "the same command without argument `resume`=False"


def run_label(
    info: RunInfo, images: Images, make_engine: EngineMaker, progress: Progress, *, jsonl: bool = False
) -> Counts:
    """Run a LabelRun to the end and return its counts. Raise TipssegError if the run cannot continue."""
    run = LabelRun(info, images, make_engine, progress, jsonl=jsonl)
    try:
        with closing(run.results()) as results:
            for _ in results:
                pass
    except KeyboardInterrupt as interrupt:
        if run.interruption:
            interrupt.add_note(run.interruption)
        raise
    return run.counts


def begin(engine: Engine, images: Images, folder: OutputFolder) -> RunInfo:
    """Write the first records, and return the facts of the run. Raise OutputError if they cannot be written."""
    info = replace(
        engine.info, image_root=address_text(images.root), started=datetime.now(UTC), batch_size=engine.batch_size
    )
    folder.begin(info)
    return info


def _images_from(images: Images, first: ImageRef | None) -> list[ImageRef]:
    """Return the known images from the first one to label on."""
    known = [item for item in images.known if isinstance(item, ImageRef)] or ([] if first is None else [first])
    return known[known.index(first) :] if first in known else known
