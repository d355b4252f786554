"""A `tipsseg label` run: skip finished images, label the rest, record the results, and bring the derived files up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Protocol, cast

from tipsseg.address import address_text
from tipsseg.errors import InputError, OutputError, UsageError, Words
from tipsseg.folder.files import TRASH
from tipsseg.folder.find import Images
from tipsseg.folder.folder import OutputFolder, locked_cache
from tipsseg.folder.moves import Moves, find_moves, follow
from tipsseg.folder.notes import (
    ImageNotes,
    Reporter,
    note_begin,
    note_division,
    note_edited,
    note_end,
    note_folder,
    note_formats,
    note_given,
    note_gone,
    note_reasons,
    note_renamed,
    note_settled,
    note_skipped,
)
from tipsseg.folder.results import ImageResult, Triaged
from tipsseg.folder.settle import Settled, settle_images
from tipsseg.folder.spec import RunInfo
from tipsseg.labelling.local import load_for
from tipsseg.options.values import index_of
from tipsseg.plugins import load_plugin, names
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import join_first, pluralize


class Engine(Protocol):
    """Label images and write their per-image files."""

    @property
    def info(self) -> RunInfo:
        """The run, with its device, dtype and vocabulary."""

    @property
    def batch_size(self) -> int | None:
        """The number of windows in a batch, which shrinks if memory is short; None if unknown."""

    def results(self, items: Iterable[Triaged]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image. Raise TipssegError if the run cannot continue."""


#: A function that makes the engine of a run, once its output folder is open and images are to be labelled.
EngineMaker = Callable[[OutputFolder, Progress, Sequence[ImageRef]], AbstractContextManager[Engine]]


@contextmanager
def local_engine(folder: OutputFolder, progress: Progress, images: Sequence[ImageRef]) -> Iterator[Engine]:
    """Load the model in this process; the first images help to choose the device if it is "auto" (see `load_for`).

    Raise TipssegError if the run cannot continue.
    """
    from tipsseg.labelling.local import LocalEngine

    loaded = load_for(folder.info, progress.say, quiet=progress.quiet, images=images)
    yield LocalEngine(loaded, folder.context, progress.say)


def engine_maker(values: Mapping[str, Any], *, listed: bool) -> EngineMaker:
    """Return what makes the engine of a run: a plugin, if the option with the name of an engine is given, or this process.

    Raise UsageError if the engine cannot be used, or not for a list of images on stdin.
    """
    for name in names("engine"):
        if values.get(name) is not None:
            return cast(EngineMaker, load_plugin("engine", name)(values[name], listed=listed))
    return local_engine


def label_images(
    folder: OutputFolder, images: Images, make_engine: EngineMaker, reporter: Reporter
) -> Generator[ImageResult, None, None]:
    """Label the images that are not labelled yet, and bring the output folder up to date.

    Yield the result of every image once its labels are recorded; a bad image is a Failed. Close the generator to stop early;
    another run resumes.

    Args:
        folder: The folder of the run.
        images: The images, from `find_images`.
        make_engine: Makes the engine that labels images (see `engine_maker`).
        reporter: Counts and prints the results.

    Raises:
        TipssegError: The run cannot continue.
    """
    progress = reporter.progress
    note_given(folder.info.spec, images.known, progress)
    if folder.cache.lock is not None and folder.cache.lock.missing:
        progress.note("no_locks", path=folder.path)
    note_folder(folder, images, progress)
    moves = _follow(folder, images, progress)
    notes = ImageNotes(folder.info.model, folder.context.formats, progress)
    for found in _results(folder, images, make_engine, reporter, moves):
        result = folder.record(found)
        if isinstance(result, Failed):
            result = replace(result, error=progress.printed(result.error))
            folder.fail(result)
        else:
            if not isinstance(result, Failed):
                notes.add(result)
            result = replace(result, files=folder.shown_files(result.entry))
        reporter.report(result)
        yield result
    if folder.info.spec.shard is not None:
        _end_shard(folder, images, notes, reporter)
        return
    settled = Settled()
    for derived in settle_images(folder, settled, folder.info.spec.jobs):
        reporter.report_derived(derived)
    folder.failed.forget_old()
    if not folder.finished:
        folder.finish(reporter.counts)
    _note_end(folder, settled, notes, reporter)
    note_gone(folder, images, moves, progress)


def _follow(folder: OutputFolder, images: Images, progress: Progress) -> Moves:
    """Let the labels follow renamed pictures, and with `prune` remove the labels of pictures that are gone. Return the rest."""
    moves, prune = find_moves(folder, images), folder.info.spec.prune
    check_prune(folder, images, moves)
    follow(folder, moves.renamed)
    if folder.info.spec.given is not None:
        folder.info.spec.given.follow(folder.previous)
    note_renamed(moves.renamed, progress)
    if moves.replaced:
        progress.note("correction_replaced", names=join_first(moves.replaced, 5), folder=folder.path / TRASH)
    if moves.alike:
        progress.note("pictures_alike", names=join_first(moves.alike, 5))
    if prune is not None:
        for name in moves.gone:
            folder.forget(folder.image(name).entry)
        number = pluralize(len(moves.gone), "image")
        reason = "labels_removed" if moves.gone else "none_removed"
        progress.note(reason, images=number, names=join_first(moves.gone, 20))
    return replace(moves, gone=() if prune is not None else moves.gone)


def check_prune(folder: OutputFolder, images: Images, moves: Moves) -> None:
    """Raise UsageError or InputError if the run is not to remove the labels of just as many images as `prune` says."""
    prune, gone = folder.info.spec.prune, len(moves.gone)
    if prune is None:
        return
    if not images.whole:
        raise UsageError(
            Words("{prune} requires all images of the folder's runs, without {sample} or another choice of images"),
            "Pass the same folders as before, without a list or options that select images.",
        )
    if gone and prune != gone:  # none may be gone: a killed command had removed them
        root, number = address_text(images.root), pluralize(gone, "labelled image is", "labelled images are")
        names = join_first(moves.gone, 3)
        raise InputError(f"{number} no longer in {root}, not {prune}: {names}", Words("Set {prune}={gone}.", gone=gone))


def _results(
    folder: OutputFolder, images: Images, make_engine: EngineMaker, reporter: Reporter, moves: Moves
) -> Generator[ImageResult, None, None]:
    """Yield what becomes of each image, to be recorded. The model is loaded for the first image that needs it."""
    items = map(folder.triage, images.refs)
    for item in items:
        if not isinstance(item, ImageRef):
            yield item
            continue
        with _begun(folder, images, make_engine, reporter, moves, item) as engine:
            context = folder.context
            note_formats(context.formats, context.files, context.classes, reporter.progress)
            reporter.began = time.monotonic()
            with closing(engine.results(chain([item], items))) as results:
                yield from results
            folder.info = replace(folder.info, batch_size=engine.batch_size)
            return
    root = address_text(images.root)
    if folder.before is None:
        with _begun(folder, images, make_engine, reporter, moves):
            pass  # no image, but the records of a run
    elif folder.before.spec.formats != folder.info.spec.formats or folder.before.image_root != root:
        folder.begin(replace(folder.info, image_root=root, started=datetime.now(UTC)))


@contextmanager
def _begun(
    folder: OutputFolder,
    images: Images,
    make_engine: EngineMaker,
    reporter: Reporter,
    moves: Moves,
    first: ImageRef | None = None,
) -> Iterator[Engine]:
    """Make the engine of a run, and write the first records; `first` is the first image to label."""
    known = [item for item in images.known if isinstance(item, ImageRef)] or ([] if first is None else [first])
    left = known[known.index(first) :] if first in known else known
    again = folder.before is not None and not folder.starting_over
    with make_engine(folder, reporter.progress, left) as engine:
        recorded = moves.recorded if again else 0
        info = begin(engine, images, folder)
        note_begin(info, images, reporter.counts, reporter.progress, recorded=recorded, again=again)
        yield engine


def _note_end(folder: OutputFolder, settled: Settled, notes: ImageNotes, reporter: Reporter) -> None:
    """Print the files for the whole run and the totals, and what a person should know."""
    spec, progress, counts = folder.info.spec, reporter.progress, reporter.counts
    progress.end()
    progress.results(folder.run_paths)
    notes.end(folder)
    note_reasons(folder.reasons, progress)
    note_settled(folder, settled, progress)
    if spec.given is not None and spec.given.labels is not None:
        note_skipped(spec.given.labels.skipped, spec.onto, progress)
    if counts.labelled or progress.detailed:
        note_division(spec.formats, folder.cache.names(), folder.context.files, progress)
    note_edited(counts, progress)
    for line in folder.totals.lines():
        progress.say(line)
    shown = "" if reporter.shown is None else f"; see {reporter.shown}"
    note_end(progress, counts, time.monotonic() - reporter.began, f", into {spec.output}{shown}")
    reporter.note_failures(folder)


def _end_shard(folder: OutputFolder, images: Images, notes: ImageNotes, reporter: Reporter) -> None:
    """Print the totals of a shard, and settle the folder if no other shard runs, and no image of them lacks a mask."""
    spec, progress = folder.info.spec, reporter.progress
    progress.end()
    notes.end(folder)
    note_reasons(folder.reasons, progress)
    note_end(progress, reporter.counts, time.monotonic() - reporter.began, f", into {spec.output}")
    if images.elsewhere is None:  # a task of Ray, whose driver settles
        return
    folder.failed.write()
    folder.cache.close()
    assert folder.cache.lock is not None
    folder.cache.lock.give_back()
    try:
        with locked_cache(spec.output) as cache:
            info = replace(folder.info, spec=replace(spec, shard=None))
            whole = OutputFolder(info, cache, info)
            whole.failed.join()
            failed = {failure.image for failure in whole.failed.all()}
            lacking = [ref for ref in images.elsewhere if not whole.context.mask_path(ref).exists()]
            if missing := [ref for ref in lacking if ref.name not in failed]:
                assert spec.shard is not None
                shards = sorted({index_of(ref.name, spec.shard.count) for ref in missing})
                names = join_first([f"{each}/{spec.shard.count}" for each in shards], 10)
                number = pluralize(len(missing), "image has", "images have")
                progress.note(
                    "parts_missing", number=number, shards="shard" if len(shards) == 1 else "shards", names=names
                )
                return
            whole.look()
            settled = Settled()
            for derived in settle_images(whole, settled, spec.jobs):
                reporter.report_derived(derived)
            whole.finish(reporter.counts)
            progress.results(whole.run_paths)
            note_settled(whole, settled, progress)
            progress.note("parts_done", images=pluralize(len(whole), "image"), output=spec.output)
    except OutputError as error:
        progress.note("last_part", reason=error.reason)


def begin(engine: Engine, images: Images, folder: OutputFolder) -> RunInfo:
    """Write the first records, and return the facts of the run. Raise OutputError if they cannot be written."""
    info = replace(
        engine.info, image_root=address_text(images.root), started=datetime.now(UTC), batch_size=engine.batch_size
    )
    folder.begin(info)
    return info
