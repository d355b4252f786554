"""`tipsseg merge`: join runs of one question. Record their images in another folder, with copies of their files.

The files of a folder's own shards are moved. An image is recorded as if it had just been labelled, so a killed command goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tipsseg.commands.correct.sources import BASES, take_bases
from tipsseg.engine.job import Job
from tipsseg.engine.notes import note_settled
from tipsseg.errors import ImageError, InputError, OutputError, UsageError
from tipsseg.formats import is_model_only
from tipsseg.images.finding import as_paths
from tipsseg.run.entry import ROWS, FileRow
from tipsseg.run.file_names import refuse_shared
from tipsseg.run.files import StagedFile, digest_of, discard
from tipsseg.run.folder import OutputFolder, locked_state
from tipsseg.run.moves import join_renamed
from tipsseg.run.question import differences_text
from tipsseg.run.read import Run, RunImage, open_folders
from tipsseg.run.record import stored_run
from tipsseg.run.results import Derived, ImageResult, Labelled, Unchanged
from tipsseg.run.settle import settle
from tipsseg.run.shards import SHARDS_FOLDER, missing_shards, output_folder, state_folders
from tipsseg.run.spec import Counts, RunInfo, refuse_file
from tipsseg.run.state import STATE_FOLDER
from tipsseg.types import Failed
from tipsseg.util.files import TEMPORARY_PREFIX, is_folder, is_same, output_error, remove_file
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import join_first, pluralize, shell_word


def merge_folders(folders: Sequence[str | Path], output: str | Path, *, verbose: Verbosity = None) -> int:
    """Join the runs in output folders into one: a new folder, or one of `folders`.

        tipsseg.review.merge_folders(["labels-a", "labels-b"], "labels")

    Args:
        folders: Output folders of `tipsseg label`, each with a run, shards, or both.
        output: The folder of the joined run.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The number of images that could not be joined, and of files that are in the way.

    Raises:
        UsageError: A folder is given twice.
        InputError: The runs cannot be joined.
        OutputError: The target cannot be written.
    """
    paths, target = as_paths(folders), Path(output)
    for number, folder in enumerate(paths):
        if any(is_same(folder, other) for other in paths[:number]):
            raise UsageError(f"{folder} is given twice", "Pass each output folder once.")
        if not is_same(folder, target) and target.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{target} is in {folder}, which is to be joined", "Choose a folder outside.")
    refuse_file(target)
    try:
        with progress_for(verbose) as progress:
            return _merge(paths, target, progress)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command to resume")
        raise


def _merge(folders: Sequence[Path], target: Path, progress: Progress) -> int:
    with locked_state(target) as state, open_folders(_run_folders(folders, target)) as runs:
        before = stored_run(state)
        if not runs and before is not None:
            remove_shards(target)
            progress.note(f"{target} holds no shards: there is nothing to join.")
            return 0
        names = {name for run in runs for name in run.state.names()}
        if not all(name in state for name in names):
            refuse_missing(runs)
        joined = OutputFolder(_joined_info(runs, before, target), state, before)
        refuse_doubles(joined, runs)
        spec = joined.info.spec
        refuse_shared(target, spec.files.names, ("png", *spec.formats), sorted({*names, *state.names()}))
        what = f"{pluralize(len(names), 'image')} of {pluralize(len(runs), 'shard' if runs[0].shard else 'run')}"
        progress.begin(f"Joining {what}.", sum(map(len, runs)))
        joined.begin(joined.info)
        job = Job(progress, resumes=True)
        for _ in job.each(joined.record(found) for found in join_images(joined, runs)):
            pass
        for run in runs:
            for failure in run.state.failures():
                if failure.image not in state or is_shard_of(run, target):
                    state.fail(failure)
            take_bases(joined, run)
            state.add_former((old, name) for name, names in run.state.former.items() for old in names)
        formats = [each.spec.formats for each in (before, *(run.info for run in runs)) if each is not None]
        uneven = {name for own in formats for name in own if not all(name in other for other in formats)}
        state.cover(sorted(name for name in uneven if not is_model_only(name)))  # each image is then in all formats
        renamed = join_renamed(joined) if not job.failed else {}
        settled = settle(joined, spec.jobs)
        joined.finish(joined.info.counts)
        if not job.failed:
            remove_shards(target)
        progress.results(joined.run_paths)
        for error in settled.failed:
            progress.error(error)
        note_settled(joined, settled, progress)
        if pairs := [f"{old} is now {new}" for old, new in renamed.items()]:
            progress.note(f"Joined images that were renamed between the runs: {join_first(pairs, 3)}.")
        if failures := len(state.failures()):
            progress.note(f"{pluralize(failures, 'image')} failed, see {target / 'errors.jsonl'}")
        progress.note(f"Joined {what} into {target}" + (f", but {job.failed} not." if job.failed else ""))
        return job.failed + len(settled.failed) + len(joined.unwritten)


def _run_folders(folders: Sequence[Path], target: Path) -> Iterator[Path]:
    """Yield the folders of the runs and shards to join; the run of the target is there already."""
    for folder in folders:
        shards = state_folders(folder) if is_folder(folder) else []
        yield from shards  # before the run that they belong to: their labels are newer
        if not is_same(folder, target):
            yield folder


def refuse_missing(runs: Sequence[Run]) -> None:
    """Raise InputError if runs lack a shard of a run."""
    shards = [run.shard for run in runs if run.shard is not None]
    for count in {shard.count for shard in shards}:
        if gaps := missing_shards([shard.index for shard in shards if shard.count == count], count):
            raise InputError(
                f"of {count} shards, these are missing: {gaps}",
                f"Run the command of the other shards with argument `shard`=I/{count}, or pass the missing folders too.",
            )


def refuse_different(infos: Sequence[RunInfo]) -> None:
    """Raise InputError if the questions of runs differ."""
    for info in infos[1:]:
        if text := differences_text(infos[0], info, " / "):
            raise InputError(
                f"{infos[0].spec.folder} and {info.spec.folder} were labelled with different settings: {text}",
                "Only runs with the same model, classes and options can be joined: otherwise ids or files would conflict.",
            )


def _joined_info(runs: Sequence[Run], before: RunInfo | None, target: Path) -> RunInfo:
    """Return the joined run: the settings of the first one, and the sums of all. Raise InputError if their questions differ."""
    infos = [*([before] if before else []), *(run.info for run in runs)]
    if not infos:
        raise InputError(f"{target}: nothing to join", "Pass output folders of tipsseg label.")
    first = infos[0]
    refuse_different(infos)
    names = ("labelled", "unchanged", "failed", "edited")
    return replace(
        first,
        spec=first.spec.changed(
            output=target,
            shard=None,
            formats=tuple(dict.fromkeys(name for info in infos for name in info.spec.formats)),
        ),
        image_root=first.image_root if len({info.image_root for info in infos}) == 1 else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        counts=Counts(*(sum(getattr(info.counts, name) for info in infos) for name in names)),
    )


def refuse_doubles(folder: OutputFolder, runs: Sequence[Run]) -> None:
    """Raise InputError if images are in two runs with different labels, unless exactly one of the two is corrected.

    Labels of a shard are newer than the labels of its output folder.
    """
    others = [folder, *runs]
    for number, run in enumerate(runs, 1):
        for other in others[:number]:
            one, two = run.shard, other.shard
            if one and two and one.count == two.count and one.index != two.index:
                continue  # they have no image in common
            newer = is_shard_of(run, other.output) or is_shard_of(other, run.output)
            doubles = [
                image for image in run.images() if image.entry.image in other and _differ(image, other, newer=newer)
            ]
            if not doubles:
                continue
            corrected = [image.entry.image for image in doubles if image.corrected]
            names = join_first(corrected or [image.entry.image for image in doubles], 3)
            hint = "Label a folder that has all images, or omit one of the runs; images are identified by their names."
            if corrected:
                kept, other_folder = (shell_word(str(each.output)) for each in (other, run))
                undo = f"tipsseg correct {other_folder} --undo {shell_word(corrected[0])}"
                hint = f"To keep the corrections in {kept}: {undo}"
            what = "were corrected in both" if corrected else "have different labels"
            raise InputError(f"{names} in {other.output} and in {run.output}: they {what}", hint)


def _differ(image: RunImage, other: Run, *, newer: bool) -> bool:
    theirs = other.image(image.entry.image)
    arriving = any(row.pending for row in theirs.label_files)  # a killed merge goes on with it
    if image.corrected != theirs.corrected or (not image.corrected and (newer or arriving)):
        return False
    digests = image.digest(), theirs.digest()
    return "" not in digests and digests[0] != digests[1]


def join_images(folder: OutputFolder, runs: Iterable[Run]) -> Iterator[ImageResult]:
    """Yield the images of runs, for `folder.record` to record one by one."""
    for run in runs:
        is_own = is_shard_of(run, folder.path)
        for image in run.images():
            try:
                yield _joined(folder, image, is_own=is_own)
            except ImageError as error:
                yield Failed(image.ref(None), error)


def _joined(folder: OutputFolder, image: RunImage, *, is_own: bool) -> Labelled | Unchanged:
    """Return an image with its files, which are copied under temporary names, or unchanged if its labels in the folder stay.

    Raise ImageError if its labels are missing.
    """
    entry, run, ref = image.entry, image.run, image.ref(None)
    before, rows = folder.state.get(entry.image), folder.state.files(entry.image)
    keeps = before is not None and (
        not (is_own or image.corrected)
        or (RunImage(before, rows, folder).corrected and not folder.info.spec.replace_edited)
    )
    staged, notes = list[StagedFile](), list[FileRow]()
    for row in image.rows.values() if not keeps else ():
        path, known = run.files.path(row.place), rows.get(row.place)
        if row.digest == ROWS or (is_own and known is not None and known.pending and not os.path.lexists(path)):
            notes.append(row)  # a killed command moved it
        elif path.is_file():
            staged.append(_stage(folder, run, row, move=is_own))
    mask = folder.context.mask_format
    labels = [file for file in staged if file.row.name == mask]
    if not labels and not any(row.name == mask for row in notes):
        discard(staged)
        if before is None:
            raise ImageError(run.output, f"the labels of {entry.image} are missing", run.hint)
        same = is_own and image.digest() == RunImage(before, rows, folder).digest()
        for row in image.rows.values() if is_own else ():
            path = run.files.path(row.place)
            if not run.files.remove(row) and (
                same if row.name == mask else digest_of(path) == digest_of(folder.files.path(row.place))
            ):
                remove_file(path)  # changed by hand in both places, in the same way
        return Unchanged(ref, before)
    derived = Derived(
        files=tuple(file for file in staged if file not in labels),
        rows={row.name: run.state.rows(row.name, entry.image) for row in notes if row.digest == ROWS},
        notes=tuple(notes),
    )
    return Labelled(ref, entry, tuple(labels), derived)


def _stage(folder: OutputFolder, run: Run, row: FileRow, *, move: bool) -> StagedFile:
    """Copy a file beside its new place, or take it as it is. One that a person changed keeps the record of what tipsseg wrote."""
    path, place = run.files.path(row.place), folder.files.path(row.place)
    changed = run.files.look(row) != "ours"
    if move:
        folder.files.refuse_outside(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(path, output_error(place, error).message) from error
        return StagedFile(temporary=path, row=row, precious=True, content=digest_of(path) if changed else None)
    status = path.stat()

    def copy(temporary: Path) -> None:
        shutil.copyfile(path, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))

    staged = folder.files.stage(row.name, place, copy, row.shows)
    if changed or staged.row.digest != row.digest:
        return replace(staged, row=replace(row, place=staged.row.place), content=staged.row.digest)
    return staged


def is_shard_of(run: Run, folder: Path) -> bool:
    """Return True for a shard whose output folder is `folder`, however its path is written."""
    return run.shard is not None and is_same(output_folder(run.output), folder)


_RECORDS = {"question.json", "run.json", "manifest.jsonl", "errors.jsonl", "classes.json"}


def remove_shards(folder: Path) -> None:
    """Remove the records of a folder's shards, whose files were moved. Raise OutputError if other files are left."""
    place, joined = folder / SHARDS_FOLDER, folder / STATE_FOLDER / "joined"
    try:
        _remove_records(joined)  # of a killed command
        if path := next(_other_files(place), None):
            raise OutputError(
                path,
                "it could not be joined: tipsseg did not write it, or another file is in its place in the folder",
                "Move one of the two away, and run the same command again.",
            )
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            place.rename(joined)  # partly removed shards would count as missing
            _remove_records(joined)
    except OSError as error:
        raise output_error(place, error) from error


def _remove_records(joined: Path) -> None:
    """Remove joined shards. Raise OutputError if a file was saved there since their files were moved: it stays."""
    others = set(_other_files(joined))
    for path in sorted(joined.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # it has others
                path.rmdir()
        elif path not in others:
            path.unlink()
    if others:
        hint = f"Import the file with tipsseg correct {shell_word(str(joined.parents[1]))} --from FILE, then remove the file."
        raise OutputError(min(others), "saved in a shard while it was joined, so it was kept", hint)
    if joined.is_dir():
        joined.rmdir()


def _other_files(top: Path) -> Iterator[Path]:
    """Yield the files among shards that are no records of theirs, sorted."""
    for path in sorted(top.rglob("*")):
        is_record = (
            path.name in _RECORDS or path.name.startswith(("state.db", TEMPORARY_PREFIX)) or path.parent.name == BASES
        )
        if path.is_file() and not path.is_symlink() and not is_record:
            yield path
