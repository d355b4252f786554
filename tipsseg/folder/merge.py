"""`tipsseg merge`: join output folders of one question, by copying the masks that one lacks, or that a person corrected."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, InputError, RecordError, UsageError
from tipsseg.folder.entry import ROWS, SEALED, Entry, FileRow
from tipsseg.folder.files import Look, StagedFile, one_image
from tipsseg.folder.folder import OutputFolder, locked_cache, written_mask
from tipsseg.folder.job import Job
from tipsseg.folder.lock import is_locked
from tipsseg.folder.moves import follow
from tipsseg.folder.names import refuse_shared
from tipsseg.folder.notes import note_settled
from tipsseg.folder.question import differences_text
from tipsseg.folder.read import Run, RunImage, open_run
from tipsseg.folder.record import stored_run
from tipsseg.folder.results import Derived, ImageResult, Labelled, Unchanged
from tipsseg.folder.settle import settle
from tipsseg.folder.spec import Counts, RunInfo, refuse_file
from tipsseg.formats import format_name, is_model_only
from tipsseg.formats.mask import seal
from tipsseg.images.access import is_gone
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import Fingerprint, is_same
from tipsseg.util.text import join_first, pluralize


def join_folders(paths: Sequence[Path], target: Path, progress: Progress) -> int:
    """Join output folders (see `merge_folders`)."""
    for number, folder in enumerate(paths):
        if any(is_same(folder, other) for other in paths[:number]):
            raise UsageError(f"{folder} is given twice", "Pass each output folder once.")
        if not is_same(folder, target) and target.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{target} is in {folder}, which is to be joined", "Choose a folder outside.")
    refuse_file(target)
    try:
        return _merge([path for path in paths if not is_same(path, target)], target, progress)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command to resume")
        raise


def _merge(folders: Sequence[Path], target: Path, progress: Progress) -> int:
    with ExitStack() as stack:
        cache = stack.enter_context(locked_cache(target))
        if busy := [folder for folder in folders if is_locked(folder)]:
            raise RecordError(busy[0], "a run is in progress", "Wait for it to finish.")
        runs = [
            stack.enter_context(open_run(folder, ended=False, blocks=True)) for folder in folders
        ]  # some may have one shard
        before = stored_run(target)
        if not runs:
            raise InputError(f"{target}: nothing to join", "Pass other output folders of tipsseg label.")
        joined = OutputFolder(_joined_info(runs, before, target), cache, before)
        joined.look()
        spec = joined.info.spec
        names = {name for run in runs for name in run.cache.names()}
        refuse_shared(target, spec.files.names, spec.formats, sorted({*names, *cache.names()}))
        what = f"{pluralize(len(names), 'image')} of {pluralize(len(runs), 'run')}"
        progress.begin("joining", sum(map(len, runs)), what=what)
        joined.begin(joined.info)
        job, conflicts = Job(progress, resumes=True), list[str]()
        for _ in job.each(joined.record(found) for found in _join(joined, runs, conflicts)):
            pass
        for run in runs:
            for failure in run.failed.all():
                if failure.image not in joined:
                    joined.failed.add(failure)
        renamed = _join_renamed(joined) if not job.failed else {}
        settled = settle(joined, spec.jobs)
        joined.finish(joined.info.counts)
        progress.results(joined.run_paths)
        for error in settled.failed:
            progress.error(error)
        note_settled(joined, settled, progress)
        if parts := [str(run.output) for run in runs if run.info.ended is None]:
            progress.note("joined_parts", folders=join_first(parts, 5))
        if conflicts:
            progress.note(
                "joined_conflicts", images=pluralize(len(conflicts), "image"), names=join_first(sorted(conflicts), 5)
            )
        if pairs := [f"{old} is now {new}" for old, new in renamed.items()]:
            progress.note("joined_renamed", pairs=join_first(pairs, 3))
        if failures := len(joined.failed):
            progress.note("joined_failures", images=pluralize(failures, "image"), file=target / "errors.jsonl")
        progress.note("joined", what=what, target=target, rest=f", but {job.failed} not." if job.failed else "")
        return job.failed + len(settled.failed)


def refuse_different(infos: Sequence[RunInfo]) -> None:
    """Raise InputError if the questions of runs differ."""
    for info in infos[1:]:
        if text := differences_text(infos[0], info, " / "):
            raise InputError(
                f"{infos[0].spec.output} and {info.spec.output} were labelled with different settings: {text}",
                "Only runs with the same model, classes and options can be joined: otherwise ids or files would conflict.",
            )


def _joined_info(runs: Sequence[Run], before: RunInfo | None, target: Path) -> RunInfo:
    """Return the joined run: the settings of the first one, and the sums of all. Raise InputError if their questions differ."""
    infos = [*([before] if before else []), *(run.info for run in runs)]
    first = infos[0]
    refuse_different(infos)
    names = ("labelled", "unchanged", "failed", "edited")
    formats = tuple(dict.fromkeys(name for info in infos for name in info.spec.formats))
    return replace(
        first,
        spec=first.spec.changed(output=target, formats=formats),
        image_root=first.image_root if len({info.image_root for info in infos}) == 1 else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        counts=Counts(*(sum(getattr(info.counts, name) for info in infos) for name in names)),
    )


def _join(folder: OutputFolder, runs: Sequence[Run], conflicts: list[str]) -> Iterator[ImageResult]:
    """Yield the images of runs, for `folder.record` to record one by one; add the images with two corrections to `conflicts`."""
    for run in runs:
        for image in run.images():
            ref, there = image.ref(None), folder.cache.get(image.entry.image)
            try:
                if (
                    there is not None
                    and there.corrected
                    and image.corrected
                    and there.mask.labels != image.entry.mask.labels
                ):
                    conflicts.append(ref.name)
                if there is not None and not _wins(image.entry, there):
                    yield Unchanged(ref, there)
                else:
                    yield _copied(folder, image)
            except ImageError as error:
                yield Failed(ref, error)
        for place, fault in run.faults.items():
            yield Failed(ImageRef(run.files.path(place), PurePosixPath(place)), fault)


def _wins(entry: Entry, there: Entry) -> bool:
    """Return True if a mask replaces the one that is there: a person's the model's, and a newer correction an older one."""
    if entry.corrected and there.corrected:
        return entry.mask.labels != there.mask.labels and entry.mask.saved > there.mask.saved
    return entry.corrected


def _copied(folder: OutputFolder, image: RunImage) -> Labelled:
    """Return an image with copies of its files under temporary names. Raise ImageError if one cannot be read."""
    entry, run, ref, staged = image.entry, image.run, image.ref(None), list[StagedFile]()
    with one_image(ref, staged):
        copy = partial(_stage, folder, run.output)
        if entry.state == SEALED or run.context.block_mask:
            mask = copy(image.mask, run.context.mask_format, "")
        else:
            image.labels()  # as they were when it was looked at
            data = seal(image.mask.read_bytes(), entry.mask, entry.bulk.unpacked())
            mask = folder.files.stage(run.context.mask_format, folder.files.path(entry.place), data)
            entry = replace(entry, **written_mask(data, mask.row))
        staged.append(mask)
        for row in image.rows.values():
            look = "gone" if row.digest == ROWS else run.files.look(row)
            if look != "gone" and not _is_outdated(folder, entry, row, look):
                file = copy(run.files.path(row.place), row.name, row.shows)
                staged.append(file if look == "ours" else replace(file, row=row))  # a person's, as before
    notes = tuple(row for row in image.rows.values() if row.digest == ROWS)
    derived = Derived(
        formats=(),
        files=tuple(staged[1:]),
        rows={row.name: run.cache.rows(row.name, entry.image) for row in notes},
        notes=notes,
    )
    stamp = Fingerprint(mask.row.size, mask.row.mtime_ns, mask.row.digest)
    return Labelled(ref, replace(entry, stamp=stamp), mask, derived)


def _is_outdated(folder: OutputFolder, entry: Entry, row: FileRow, look: Look) -> bool:
    """Return True for a file that is written again: of older labels, or of other options if nobody edited it."""
    name = format_name(row.name)
    if not row.is_file or is_model_only(name):
        return False
    shows = folder.deriver.shows(name, entry)
    return not row.shows_labels(shows) if look == "other" else row.shows != shows


def _stage(folder: OutputFolder, top: Path, path: Path, name: str, shows: str) -> StagedFile:
    """Copy a file of the folder `top` beside its new place, with its time. Raise ImageError if it cannot be read."""

    def copy(temporary: Path) -> None:
        try:
            status = path.stat()
            shutil.copyfile(path, temporary)
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        except FileNotFoundError as error:
            raise ImageError(path, "missing") from error

    return folder.files.stage(name, folder.path / path.relative_to(top), copy, shows)


def _join_renamed(folder: OutputFolder) -> dict[str, str]:
    """Join images of one picture under two names of which one is gone; return the names of now by the ones that are gone.

    A correction goes along, unless the other image is corrected too; both stay then.
    """
    by_picture: dict[str, list[Entry]] = {}
    for entry in folder.cache.entries():
        by_picture.setdefault(entry.mask.picture.sha256, []).append(entry)
    joined, moves = dict[str, str](), {}
    for sha256, pair in by_picture.items():
        gone = [is_gone(folder.image(entry.image).path(None)) for entry in pair]
        if not sha256 or len(pair) != 2 or sum(gone) != 1 or all(entry.corrected for entry in pair):
            continue
        old, new = pair[gone.index(True)], pair[gone.index(False)]
        joined[old.image] = new.image
        if old.corrected:
            ref = folder.image(new.image).ref(None)
            folder.forget(new)
            moves[old.image] = ref
        else:
            folder.forget(old)
    follow(folder, moves)
    return joined
