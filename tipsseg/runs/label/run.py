"""A `tipsseg label` run: skip finished images, label the rest, record the results.

images ─► OutputFolder ─► finished, or to be labelled ─► Engine ─► results, recorded and printed ─► files for the whole run
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tipsseg.address import address_text
from tipsseg.formats import model_only_formats
from tipsseg.formats.overlay import Overlay
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.notes import (
    Edited,
    ImageNotes,
    note_begin,
    note_division,
    note_edited,
    note_end,
    note_folder,
    note_formats,
    note_given,
    note_outdated,
    note_resume,
    note_skipped,
)
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.convert.folder import convert_folder
from tipsseg.runs.engine.engine import Engine
from tipsseg.store.folder import OutputFolder
from tipsseg.store.results import Failed, ImageResult, Labelled, Left, Unchanged, image_paths
from tipsseg.store.resuming.refusals import refuse_convertible, refuse_mixture
from tipsseg.store.resuming.resume import ResumeState
from tipsseg.store.spec import Counts, RunInfo
from tipsseg.types import ImageRef


class LabelRun:
    """Label the images that are not labelled yet, and write the output folder.

    Attributes:
        counts: The results so far.
        interruption: The message if the run was interrupted while it labelled; otherwise "".
    """

    def __init__(
        self, info: RunInfo, images: Images, engine: Engine, progress: Progress, *, jsonl: bool = False
    ) -> None:
        """Set up a run.

        Args:
            info: The run, from `plan_run`.
            images: The images, from `find_images`.
            engine: The engine that labels images.
            progress: Prints results and notes.
            jsonl: Print a line of JSON per image instead of the paths of its files.
        """
        self.counts = Counts()
        self.interruption = ""
        self._info = info
        self._images = images
        self._engine = engine
        self._progress = progress
        self._jsonl = jsonl
        self._notes, self._edited = ImageNotes(info.model, progress), Edited()
        self._shown: Path | None = None  # the first overlay
        self._reporter = Reporter(progress, jsonl=jsonl)

    def results(self) -> Generator[ImageResult, None, None]:
        """Yield the result of every image once its files are in place and recorded. Call this once.

        A bad image is a Failed. Close the generator to stop early; another run resumes.

        Raises:
            TipssegError: The run cannot continue.
        """
        note_given(self._info.spec, self._images.known, self._progress)
        with OutputFolder(self._info, self._images.known) as self._folder:
            self._images = refuse_unfit(self._folder.resume, self._images)
            note_folder(self._folder, self._progress)
            note_resume(self._folder.resume, self._images, self._progress)
            try:
                yield from self._label()
            except (KeyboardInterrupt, GeneratorExit):
                self.interruption = self._reporter.interruption(self._resuming_command())
                raise
            finally:
                self.counts = self._reporter.counts
        failed = self._convert_edited(self._edited)
        self.counts = replace(self.counts, failed=self.counts.failed + failed)
        if self._shown is not None and not self._jsonl:
            self._progress.note(f"Open {self._shown} to see the labels.")

    def _label(self) -> Generator[ImageResult, None, None]:
        """Yield finished images, label the rest, and write the files for the whole run."""
        folder, spec = self._folder, self._info.spec
        began = time.monotonic()
        items = as_items(self._images.refs, folder.resume)
        # The model is loaded for the first image that needs it.
        first: ImageRef | None = None
        for item in items:
            if isinstance(item, ImageRef):
                first = item
                break
            yield self._report(item)
        batch_size = None
        if first is not None or not folder.begun:
            self._begin(first)
            note_formats(spec.formats, spec.files, spec.vocabulary.classes, self._progress)
            began = time.monotonic()
            if first is not None:
                with closing(self._engine.results(chain([first], items))) as results:
                    for result in results:
                        yield self._report(result)
                batch_size = self._engine.batch_size()
        self._end(batch_size, began)

    def _begin(self, first: ImageRef | None) -> None:
        """Load the model and write the first records. Skip the model if no image needs it and run.json has its facts."""
        folder, images = self._folder, self._images
        before = folder.resume.before if folder.resume.of_the_same and len(folder.state) else None
        if first is not None or before is None or before.vocabulary is None:
            note_begin(begin(self._engine, images, folder, first), images, self._reporter.counts, self._progress)
            return
        asked, used = self._info.spec.vocabulary, before.vocabulary
        info = replace(
            self._info,
            model=before.model,
            device=before.device,
            vocabulary=replace(asked, background=used.background, auto=False),
            batch_size=before.batch_size,
        )
        folder.begin(_begun(info, images))

    def _report(self, result: ImageResult) -> ImageResult:
        """Record a result in the folder, print it, and return it; an image fails if another file is in the way of its files."""
        folder, paths = self._folder, dict[str, Path]()
        if isinstance(result, Labelled):
            result = folder.add(result)
        match result:
            case Failed():
                folder.fail(replace(result, error=self._progress.worded(result.error)))
            case Labelled():
                self._notes.add(result)
            case Unchanged():
                folder.keep(result)
                self._edited.add(result)
        if not isinstance(result, Failed):
            held = [name for name in folder.formats if name in result.entry.formats]
            paths = image_paths(folder.context, result.ref, held, result.entry)
            self._shown = self._shown or paths.get(Overlay.name)
        self._reporter.report(result, paths)
        return result

    def _end(self, batch_size: int | None, began: float) -> None:
        """Write the files for the whole run, and note the totals; `began` is the time when labelling began."""
        folder, spec, progress, counts = self._folder, self._info.spec, self._progress, self._reporter.counts
        if not folder.finished or counts.labelled or counts.failed:
            folder.finish(counts, batch_size)
        progress.end()
        progress.results(folder.run_paths)
        self._notes.end()
        note_outdated(folder.resume, spec, progress)
        if spec.given is not None and spec.given.labels is not None:
            note_skipped(spec.given.labels.skipped, spec.onto, progress)
        note_division(spec.formats, folder.state, folder.context.files, progress)
        note_edited(spec, counts, self._edited, progress)
        for line in folder.totals().lines():
            progress.note(line)
        note_end(progress, counts, time.monotonic() - began, f", into {spec.output}")

    def _resuming_command(self) -> str:
        spec = self._info.spec
        if spec.resume and not spec.overwrite:
            return "the same command"
        return "the same command without " + ("argument `overwrite`" if spec.overwrite else "argument `resume`=False")

    def _convert_edited(self, edited: Edited) -> int:
        """Convert edited images into formats that they lack, and return the number that failed."""
        formats = tuple(name for name in edited.lacking if name not in model_only_formats())
        if not formats or self._info.spec.shard is not None:
            return 0
        spec, progress = self._info.spec, self._progress.without_results() if self._jsonl else self._progress
        return convert_folder(
            spec.output, formats, self._images.root, spec.jobs, progress, only=edited.images, max_pixels=spec.max_pixels
        )


def run_label(info: RunInfo, images: Images, engine: Engine, progress: Progress, *, jsonl: bool = False) -> Counts:
    """Run a LabelRun to the end and return its counts. Raise TipssegError if the run cannot continue."""
    run = LabelRun(info, images, engine, progress, jsonl=jsonl)
    try:
        with closing(run.results()) as results:
            for _ in results:
                pass
    except KeyboardInterrupt as interrupt:
        if run.interruption:
            interrupt.add_note(run.interruption)
        raise
    return run.counts


def refuse_unfit(resume: ResumeState, images: Images) -> Images:
    """Return the images; a stream becomes a tuple if the checks need all images.

    Raise OutputError as `refuse_mixture` and `refuse_convertible` do.
    """
    if not resume.mixed and not resume.lacks_formats:
        return images
    refs = tuple(images.refs)
    if resume.mixed:
        refuse_mixture(resume, {item.name for item in refs})
    else:
        refuse_convertible(resume, refs)
    return replace(images, refs=refs)


def as_items(refs: Iterable[ImageRef | Failed], resume: ResumeState) -> Iterator[Left]:
    """Yield images to label, results of finished images, and failures."""
    for ref in refs:
        yield resume.item(ref) if isinstance(ref, ImageRef) else ref


def begin(engine: Engine, images: Images, folder: OutputFolder, first: ImageRef | None = None) -> RunInfo:
    """Load the model, write the first records, and return the facts of the run. Raise TipssegError if the run cannot continue.

    `first` is the first image to label, if any.
    """
    known = [item for item in images.known if isinstance(item, ImageRef)] or ([] if first is None else [first])
    todo = known[known.index(first) :] if first in known else known
    info = _begun(engine.start(folder.context, todo), images)
    folder.begin(info)
    return info


def _begun(info: RunInfo, images: Images) -> RunInfo:
    return replace(info, image_root=address_text(images.root), started=datetime.now(UTC))
