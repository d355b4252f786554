"""One `tipsseg label` run: what is done already, the model for the rest, and the records of it all.

images, found before ─► OutputFolder ─► done, or to be labelled ─► Engine ─► results, recorded, told of ─► run files
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tipsseg.formats import model_only_formats
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
    note_outdated,
    note_resume,
)
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.convert.folder import convert_folder
from tipsseg.runs.engine.engine import Engine
from tipsseg.store.folder import OutputFolder
from tipsseg.store.refusals import refuse_convertible, refuse_mixture
from tipsseg.store.results import Failed, ImageResult, Labelled, Left, Unchanged, image_paths
from tipsseg.store.resume import ResumeState
from tipsseg.store.spec import Counts, RunInfo
from tipsseg.types import ImageRef


class LabelRun:
    """Labels the images that are not labelled yet, and writes everything below the output folder.

    Attributes:
        counts: What became of the images.
        broken_off: What to say where the run was broken off while it labelled; "" otherwise.
    """

    def __init__(
        self, info: RunInfo, images: Images, engine: Engine, progress: Progress, *, jsonl: bool = False
    ) -> None:
        """Nothing is done yet.

        Args:
            info: The run, as `plan_run` gives it.
            images: Its images, see `find_images`.
            engine: Labels them.
            progress: Says what happens.
            jsonl: Whether a line of JSON per image takes the place of the paths of its files.
        """
        self.counts = Counts()
        self.broken_off = ""
        self._info = info
        self._images = images
        self._engine = engine
        self._progress = progress
        self._jsonl = jsonl
        self._notes, self._edited = ImageNotes(info.model, progress), Edited()
        self._reporter: Reporter[ImageResult] = Reporter(progress, self._record, jsonl=jsonl)

    def results(self) -> Generator[ImageResult, None, None]:
        """Yield the result of each image once its files are in place and recorded; call this once.

        A bad image is a Failed. Where not all results are taken, close the generator; another run goes on from there.

        Raises:
            TipssegError: For what ends the run.
        """
        with OutputFolder(self._info, self._images.known) as self._folder:
            self._images = refuse_unfit(self._folder.resume, self._images)
            note_folder(self._folder, self._progress)
            note_resume(self._folder.resume, self._images, self._progress)
            try:
                yield from self._label()
            except (KeyboardInterrupt, GeneratorExit):
                self.broken_off = self._reporter.broken_off(self._again())
                raise
            finally:
                self.counts = self._reporter.counts
        failed = self._follow_edited(self._edited)
        self.counts = replace(self.counts, failed=self.counts.failed + failed)

    def _label(self) -> Generator[ImageResult, None, None]:
        """Give on what is done, have the rest labelled, and write the files that stand for all images."""
        folder, spec = self._folder, self._info.spec
        began = time.monotonic()
        left = as_items(self._images.refs, folder.resume)
        # The model is loaded for the first image that needs it, if there is one.
        first: ImageRef | None = None
        for item in left:
            if isinstance(item, ImageRef):
                first = item
                break
            self._reporter.take(item)
            yield item
        batch_size = None
        if first is not None or not folder.begun:
            self._begin(first)
            note_formats(spec.formats, spec.files, spec.vocabulary.classes, self._progress)
            began = time.monotonic()
            if first is not None:
                yield from self._reporter.each(folder.placed(self._engine.results(chain([first], left))))
                batch_size = self._engine.batch_size()
        self._end(batch_size, began)

    def _begin(self, first: ImageRef | None) -> None:
        """Get the model ready and write the records that come first; without the model if the folder knows what it came to."""
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

    def _record(self, result: ImageResult) -> Mapping[str, Path]:
        """Record a result in the folder; return the per-image files to be told of."""
        folder = self._folder
        match result:
            case Failed():
                folder.fail(replace(result, error=self._progress.worded(result.error)))
                return {}
            case Labelled():
                folder.add(result)
                self._notes.take(result)
            case Unchanged():
                folder.keep(result)
                self._edited.take(result)
        held = [name for name in folder.formats if name in result.entry.formats]
        return image_paths(folder.context, result.ref, held)

    def _end(self, batch_size: int | None, began: float) -> None:
        """Write the files that stand for all images, and say how it went; labelling `began` at that time."""
        folder, spec, progress, counts = self._folder, self._info.spec, self._progress, self._reporter.counts
        if not folder.finished or counts.labelled or counts.failed:
            folder.finish(counts, batch_size)
        progress.end()
        progress.results(folder.run_paths)
        self._notes.end()
        note_outdated(folder.resume, spec, progress)
        note_division(spec.formats, folder.state, folder.context.files, progress)
        note_edited(spec, counts, self._edited, progress)
        for line in folder.totals().lines():
            progress.note(line)
        note_end(progress, counts, time.monotonic() - began, f", into {spec.output}")

    def _again(self) -> str:
        """Return how to go on from here, in words."""
        spec = self._info.spec
        if spec.resume and not spec.overwrite:
            return "the same command"
        return "the same command without " + ("argument `overwrite`" if spec.overwrite else "argument `resume`=False")

    def _follow_edited(self, edited: Edited) -> int:
        """Write edited images in the formats that were asked for and that they lack; returns how many failed."""
        formats = tuple(name for name in edited.lacking if name not in model_only_formats())
        if not formats or self._info.spec.shard is not None:
            return 0
        spec, told = self._info.spec, self._progress.without_results() if self._jsonl else self._progress
        return convert_folder(
            spec.output, formats, self._images.root, spec.jobs, told, only=edited.images, max_pixels=spec.max_pixels
        )


def run_label(info: RunInfo, images: Images, engine: Engine, progress: Progress, *, jsonl: bool = False) -> Counts:
    """Run all of a LabelRun, and return what became of the images. Raises TipssegError for what ends the run."""
    run = LabelRun(info, images, engine, progress, jsonl=jsonl)
    try:
        with closing(run.results()) as results:
            for _ in results:
                pass
    except KeyboardInterrupt as interrupt:
        if run.broken_off:
            interrupt.add_note(run.broken_off)
        raise
    return run.counts


def refuse_unfit(resume: ResumeState, images: Images) -> Images:
    """Return the images again, all at hand if that had to be known.

    Raises OutputError, see `refuse_mixture` and `refuse_convertible`.
    """
    if not resume.mixed and not resume.lacks_formats:
        return images
    refs = tuple(images.refs)
    if resume.mixed:
        refuse_mixture(resume, {each.name for each in refs})
    else:
        refuse_convertible(resume, refs)
    return replace(images, refs=refs)


def as_items(refs: Iterable[ImageRef | Failed], resume: ResumeState) -> Iterator[Left]:
    """The images, each as what an earlier run left of it says: to be labelled, done, or not possible."""
    for ref in refs:
        yield resume.item(ref) if isinstance(ref, ImageRef) else ref


def begin(engine: Engine, images: Images, folder: OutputFolder, first: ImageRef | None = None) -> RunInfo:
    """Get the model ready, write the records that come first, and return what the run came to. Raises TipssegError.

    `first` is the first image to be labelled, if there is one.
    """
    to_come = [each for each in images.known if isinstance(each, ImageRef)] or ([] if first is None else [first])
    info = _begun(engine.start(folder.context, to_come), images)
    folder.begin(info)
    return info


def _begun(info: RunInfo, images: Images) -> RunInfo:
    return replace(info, image_root=str(images.root), started=datetime.now(UTC))
