"""One `tipsseg label` run: what is done already, the model for the rest, and the records of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tipsseg.formats import FORMATS, of_the_model
from tipsseg.runs.convert import convert_folder
from tipsseg.runs.engine import Engine, Started
from tipsseg.runs.format_notes import note_parts
from tipsseg.runs.image_notes import ImageNotes
from tipsseg.runs.progress import Progress
from tipsseg.runs.reporting import JsonReporter, Reporter
from tipsseg.store.file_names import NameKey, name_key
from tipsseg.store.folder import OutputFolder
from tipsseg.store.results import Failed, ImageResult, Item, Labelled, Unchanged
from tipsseg.store.resume import ResumeState, image_paths
from tipsseg.store.run_record import RUN_FILE, Counts, RunFacts
from tipsseg.store.spec import Job
from tipsseg.types import ImageRef
from tipsseg.util.printable import counted, shell_word


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run: all of them, or one after the other as a list comes in.

    refs   a tuple, or an iterator; with inputs of which it is known that they cannot be labelled
    root   the folder that their names begin at
    """

    refs: Iterable[ImageRef | Failed]
    root: Path

    @property
    def number(self) -> int | None:
        """How many there are; None where that is not known yet."""
        return len(self.refs) if isinstance(self.refs, tuple) else None


#: The images of a run, once it is known which names are one to the file system. Raises InputError where two share an output.
Find = Callable[[NameKey], Images]


def run_label(job: Job, find: Find, engine: Engine, progress: Progress) -> Counts:
    """Label what of the images is not labelled yet, and write everything below the output folder.

    Raises TipssegError for what ends a run; a bad image is reported and counted.
    """
    request = job.request
    with ExitStack() as stack:
        folder = stack.enter_context(OutputFolder(job))
        images = find(name_key(job.context.state))
        refs = images.refs if isinstance(images.refs, tuple) else ()
        folder.prepare(refs)
        images = refuse_mixture(folder.earlier, images)
        note_folder(folder, progress)
        formats, names = folder.earlier.derivable(refs)
        if formats:
            stack.close()
            progress.note(
                f"The model has labelled all images: {', '.join(formats)} of {counted(len(names), 'image')} "
                "from those labels."
            )
            convert_folder(
                request.output, formats, images.root, request.model.jobs, progress.without_results(), only=names
            )
            folder = stack.enter_context(OutputFolder(job))
        note_earlier(folder.earlier, images, progress)
        reporter = JsonReporter(progress) if request.jsonl else Reporter(progress)
        run = _Run(job, folder, reporter, progress)
        try:
            run.go(images, engine, progress)
        except KeyboardInterrupt as interrupt:
            again = "the same command"
            if not request.resume or request.overwrite:
                again += f" without {'--overwrite' if request.overwrite else '--no-resume'}"
            interrupt.add_note(
                f"{counted(run.counts.labelled + run.counts.unchanged, 'image')} done; {again} goes on from there"
            )
            raise
    failed = _follow_edited(job, images, run.edited, progress)
    return replace(run.counts, failed=run.counts.failed + failed)


def _follow_edited(job: Job, images: Images, edited: Edited, progress: Progress) -> int:
    """Write edited images in the formats that were asked for and that they lack; returns how many failed."""
    request = job.request
    formats = tuple(name for name in edited.lacking if name not in of_the_model())
    if not formats or request.shard is not None:
        return 0
    told = progress.without_results() if request.jsonl else progress
    return convert_folder(request.output, formats, images.root, request.model.jobs, told, only=frozenset(edited.images))


def refuse_mixture(earlier: ResumeState, images: Images) -> Images:
    """The images again, all at hand where that had to be known. Raises OutputError, see ResumeState."""
    if not earlier.mixed:
        return images
    refs = tuple(images.refs)
    earlier.refuse_mixture({each.name for each in refs})
    return replace(images, refs=refs)


def items(refs: Iterable[ImageRef | Failed], earlier: ResumeState) -> Iterator[Item]:
    """The images, with those in their places that are done, or cannot be."""
    for ref in refs:
        yield earlier.item(ref) if isinstance(ref, ImageRef) else ref


@dataclass(slots=True)
class Edited:
    """Images of a run whose files were changed by hand.

    images      those that lack formats
    lacking     these formats
    other_input how many have an image that was changed since
    """

    images: set[str] = field(default_factory=set)
    lacking: dict[str, None] = field(default_factory=dict)
    other_input: int = 0

    def take(self, unchanged: Unchanged) -> None:
        """Take an image."""
        if unchanged.lacking:
            self.images.add(unchanged.ref.name)
            self.lacking |= dict.fromkeys(unchanged.lacking)
        self.other_input += unchanged.other_input


class _Run:
    """Counts what becomes of the images, and tells the output folder and the user."""

    def __init__(self, job: Job, folder: OutputFolder, reporter: Reporter, progress: Progress) -> None:
        self.counts = Counts()
        self.edited = Edited()
        self._notes = ImageNotes(job.decides.model, progress)
        self._job = job
        self._folder = folder
        self._reporter = reporter

    def go(self, images: Images, engine: Engine, progress: Progress) -> None:
        began = time.monotonic()
        batch_size = None
        rest = items(images.refs, self._folder.earlier)
        first = self._take_until_work(rest)
        if first is not None or not self._folder.begun:
            started = engine.start()
            self._job = settle(self._job, started, self._folder)
            begin(self._job, images, self._folder, started)
            note_begin(self._job, images, started, self.counts, progress)
            note_parts(self._job.request.formats, self._job.request.files, progress)
            began = time.monotonic()
        if first is not None:
            with closing(engine.outcomes(chain([first], rest))) as outcomes:
                for outcome in outcomes:
                    self.take(outcome)
            batch_size = engine.batch_size()
        if not self._folder.finished or self.counts.labelled or self.counts.failed:
            self._folder.finish(self.counts, batch_size)
        progress.end()
        progress.results(self._folder.run_paths)
        self._notes.end()
        note_outdated(self._folder.earlier, self._job, progress)
        note_edited(self._job, self.counts, self.edited, progress)
        for line in self._folder.totals().lines():
            progress.note(line)
        note_end(progress, self.counts, time.monotonic() - began, f", into {self._job.request.output}")

    def _take_until_work(self, rest: Iterator[Item]) -> ImageRef | None:
        """Take what needs no model; the first image that does, None where none does."""
        for item in rest:
            if isinstance(item, ImageRef):
                return item
            self.take(item)
        return None

    def take(self, outcome: ImageResult) -> None:
        """Note what became of an image, then tell of it."""
        counts = self.counts
        match outcome:
            case Failed(_, error):
                self._folder.fail(outcome)
                self.counts = replace(counts, failed=counts.failed + 1)
                self._reporter.failed(error)
                return
            case Labelled(ref, entry):
                self._folder.add(outcome)
                self.counts = replace(counts, labelled=counts.labelled + 1)
                self._notes.take(outcome)
            case Unchanged(ref, entry, edited):
                self._folder.keep(outcome)
                self.edited.take(outcome)
                self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(edited))
        held = [name for name in self._job.request.formats if name in entry.formats]
        self._reporter.done(ref, entry, image_paths(self._job.context, ref, held))


def settle(job: Job, started: Started, folder: OutputFolder | None) -> Job:
    """The same job with the dtype that the model computes in, which decides labels; known to the folder from now on."""
    settled = replace(job, decides=job.decides.settle(started.dtype))
    if folder is not None:
        folder.settle(settled)
    return settled


def begin(job: Job, images: Images, folder: OutputFolder, started: Started) -> None:
    """Write the records that come first. Raises OutputError."""
    asked = job.request.model
    facts = RunFacts(
        decides=job.decides,
        command=asked.command(),
        device=started.device,
        dtype=started.dtype,
        sha256=started.sha256,
        vocabulary=started.vocabulary,
        asked={"device": asked.device, "dtype": asked.dtype, "batch_size": asked.batch_size},
        formats=job.request.formats,
        image_root=str(images.root),
        shard=None if job.request.shard is None else str(job.request.shard),
        started=datetime.now(UTC),
    )
    folder.begin(facts, started.vocabulary)


def note_folder(folder: OutputFolder, progress: Progress) -> None:
    """What there is to say of files that were there."""
    for path in folder.kept:
        progress.note(f"{path} was changed by hand, and is kept.")
    for path in folder.set_aside:
        progress.note(
            f"Lines of the records in {path.parent} cannot be read; {path} keeps them, and their images are labelled again."
        )
    if folder.earlier.lost:
        progress.note(
            f"The manifest lacks {counted(folder.earlier.lost, 'image')} that {RUN_FILE} counts; labelled again where given."
        )


def note_earlier(earlier: ResumeState, images: Images, progress: Progress) -> None:
    """What there is to say of an earlier run that this one goes on from."""
    for journal in earlier.journals.values():
        if journal.lost:
            progress.note(
                f"{journal.path} is gone, or not as it was written: {counted(journal.lost, 'image')} of it to be labelled again."
            )
    root = None if earlier.record is None or not len(earlier.manifest) else earlier.record.get("image_root")
    if root is not None and root != str(images.root):
        progress.note(
            f"The names of images begin at {images.root} now, and began at {root} in the run before: "
            "images of both are labelled twice."
        )


def note_begin(job: Job, images: Images, started: Started, counts: Counts, progress: Progress) -> None:
    """What there is to say once the model is ready; `counts` are of the images that needed none."""
    asked, number = job.request.model, images.number
    what = "Images as they come" if number is None else counted(number, "image")
    before = f", the first {counts.unchanged} of them done before" if counts.unchanged else ""
    progress.begin(f"{what} with {asked.model} on {started.device} ({started.dtype}){before}.", number, counts.done)
    if started.dropped:
        same = ", ".join(f"{stuff} (close to {name})" for stuff, name in started.dropped.items())
        progress.note(f"No part of the background, as each means the same as a class to this model: {same}.")


def note_outdated(earlier: ResumeState, job: Job, progress: Progress) -> None:
    """Say which formats of an earlier run, or of a conversion, are not of the labels that are there now."""
    names = ",".join(name for name in FORMATS if name in earlier.outdated)
    if names:
        place = shell_word(str(job.request.output))
        later = ",".join(name for name in names.split(",") if name not in of_the_model())
        how = f"; tipsseg convert {place} --format {later} writes them" if later and not job.request.shard else ""
        if later != names:
            how += "; only the model can write the scores of npz and confidence, with tipsseg label --format"
        progress.note(f"Images that were labelled anew are not in {names} any more{how}.")


def note_edited(job: Job, counts: Counts, edited: Edited, progress: Progress) -> None:
    """Say how many images have files that were changed by hand, and what does not follow from them."""
    if counts.edited:
        one = counts.edited == 1
        place = shell_word(str(job.request.output))
        progress.note(
            f"Files of {counted(counts.edited, 'image')} were changed by hand and are kept; "
            f"--replace-edited labels {'it' if one else 'them'} anew, and tipsseg convert {place} --format FORMAT "
            "takes a changed mask into other formats."
        )
    if edited.other_input:
        progress.note(
            f"The image itself was changed since in {edited.other_input} of these cases: the kept labels are of the image before."
        )
    if never := [name for name in edited.lacking if name in of_the_model()]:
        progress.note(
            f"Only the model can write {', '.join(never)}, so that {counted(len(edited.images), 'changed image')} lack it."
        )


def note_end(progress: Progress, counts: Counts, seconds: float, where: str) -> None:
    """The last line of a run."""
    parts = [f"{counted(counts.labelled, 'image')} labelled"]
    parts += [f"{counts.unchanged} unchanged"] if counts.unchanged else []
    parts += [f"{counts.failed} failed"] if counts.failed else []
    progress.note(f"{', '.join(parts)} in {seconds:.1f} s{where}")
