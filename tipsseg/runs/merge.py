"""`tipsseg merge`: join runs of one question, or the shards of a run, into one output folder.

Files are copied, or moved if they belong to shards of the target. Then the records are joined, and the derived files of the whole
run are written. A merge may be killed at any point; the same command goes on, because an image whose record is in the target is
done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, OutputError, UsageError
from tipsseg.run.derive import Derived
from tipsseg.run.files import StagedFile
from tipsseg.run.folder import OutputFolder, locked_state, refuse_lost_record
from tipsseg.run.names import refuse_shared
from tipsseg.run.question import question_differences
from tipsseg.run.read import Run, RunImage, has_run, open_runs
from tipsseg.run.record import stored_run
from tipsseg.run.settle import settle
from tipsseg.run.shards import SHARDS_FOLDER, missing_shards
from tipsseg.run.spec import Counts, RunInfo, check_folder
from tipsseg.run.state import LINK, ROWS, STATE_FOLDER, FileRow
from tipsseg.runs.common.notes import note_settled
from tipsseg.runs.common.progress import Progress
from tipsseg.types import ImageRef
from tipsseg.util.files import TEMPORARY_PREFIX, output_error
from tipsseg.util.printable import pluralize


def merge_folders(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    """Join the runs in output folders into `target`: a new folder, or one of `folders`.

    Args:
        folders: Output folders of `tipsseg label`, each with a whole run or shards.
        target: The folder of the joined run.
        progress: Prints progress, notes and results.

    Raises:
        UsageError: A folder is given twice.
        InputError: The runs cannot be joined.
        OutputError: The target cannot be written, or has other files in the way.
    """
    for number, folder in enumerate(folders):
        if any(_same(folder, other) for other in folders[:number]):
            raise UsageError(f"{folder} is given twice", "Pass each output folder once.")
    check_folder(target)
    refuse_lost_record(target)
    try:
        with locked_state(target) as state, ExitStack() as stack:
            shutil.rmtree(target / STATE_FOLDER / f"{TEMPORARY_PREFIX}shards", ignore_errors=True)  # of a killed merge
            runs = _runs(folders, target, stack)
            before = stored_run(state)
            info = _joined(runs, before, target)
            joined = OutputFolder(info, state, before)
            _refuse_doubles(runs, joined)
            names = sorted(
                {name for run in (Run(info, state, info.spec.max_pixels), *runs) for name in run.state.names()}
            )
            refuse_shared(target, info.spec.files.names, ("png", *info.spec.formats), names)
            number = len({name for run in runs for name in run.state.names()})
            what = (
                f"{pluralize(number, 'image')} of {pluralize(len(runs), 'shard' if runs and runs[0].shard else 'run')}"
            )
            progress.begin(f"Joining {what}.", number)
            joined.begin(info)
            for run in runs:
                for image in run.images():
                    _join(joined, run, image)
                    progress.advance()
            for failure in (failure for run in runs for failure in run.state.failures()):
                if failure.image not in state:
                    state.fail(failure)
            settled = settle(joined, info.spec.jobs)
            joined.finish(info.counts, info.batch_size)
            paths = joined.run_paths
            failed = len(state.failures())
        _remove_shards(target)
        progress.end()
        progress.results(paths)
        for error in settled.failed:
            progress.error(error)
        note_settled(joined, settled, progress)
        if failed:
            progress.note(f"{pluralize(failed, 'image')} failed, see {target / 'errors.jsonl'}")
        progress.note(f"Joined {what} into {target}")
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command to resume")
        raise


def _runs(folders: Sequence[Path], target: Path, stack: ExitStack) -> list[Run]:
    """Open the runs to join, shards in order. Raises InputError if one is unfinished, or a shard is missing or doubled."""
    runs: list[Run] = []
    for folder in folders:
        same = _same(folder, target)
        if same and has_run(folder) and not (folder / SHARDS_FOLDER).is_dir():
            continue
        place = folder / SHARDS_FOLDER if same and (folder / SHARDS_FOLDER).is_dir() else None
        runs += _shards(folder, stack) if place else stack.enter_context(open_runs(folder))
    shards: dict[tuple[int, int], Run] = {}
    for run in runs:
        if run.shard is not None:
            key = run.shard.count, run.shard.index
            if key in shards:
                raise InputError(
                    f"shard {run.shard} is in {shards[key].output} and in {run.output}",
                    "Join the shards of each run separately first.",
                )
            shards[key] = run
    if len({count for count, _ in shards}) > 1:
        raise InputError(
            "the shards are of runs in different numbers of parts", "Join those of each run separately first."
        )
    for count in {count for count, _ in shards}:
        if gaps := missing_shards([index for _, index in shards], count):
            raise InputError(
                f"{', '.join(map(str, folders))}: of {count} shards, these are missing: {gaps}",
                f"Label the missing shards with argument `shard`=I/{count}, or pass their folder too.",
            )
    return sorted(runs, key=lambda run: (run.shard.count, run.shard.index) if run.shard else (0, 0))


def _shards(folder: Path, stack: ExitStack) -> list[Run]:
    from tipsseg.run.read import open_shards

    return list(stack.enter_context(open_shards(folder)))


def _joined(runs: Sequence[Run], before: RunInfo | None, target: Path) -> RunInfo:
    """Return the joined run: the settings of the first one, and the sums of all. Raises InputError if their questions differ."""
    infos = [*([before] if before else []), *(run.info for run in runs)]
    if not infos:
        raise InputError(f"{target}: nothing to join", "Pass output folders of tipsseg label.")
    first = infos[0]
    for info in infos[1:]:
        if found := question_differences(first, info):
            texts = "; ".join(f"{name} {old} / {new}" for name, old, new in found)
            raise InputError(
                f"{first.spec.folder} and {info.spec.folder} were labelled with different settings: {texts}",
                "Join only runs of one question: otherwise ids or files would conflict.",
            )
    roots = {info.image_root for info in infos}
    formats = tuple(dict.fromkeys(name for info in infos for name in info.spec.formats))
    counts = [info.counts for info in infos]
    names = ("labelled", "unchanged", "failed", "edited")
    return replace(
        first,
        spec=replace(first.spec, output=target, shard=None, formats=formats),
        image_root=first.image_root if len(roots) == 1 else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        counts=Counts(*(sum(getattr(each, name) for each in counts) for name in names)),
    )


def _refuse_doubles(runs: Sequence[Run], folder: OutputFolder) -> None:
    """Raise InputError if two runs have an image with different labels, unless exactly one of them is corrected."""
    seen: dict[str, tuple[Run, str, bool]] = {}
    own = Run(folder.info, folder.state, folder.info.spec.max_pixels)
    for run in (own, *runs):
        for image in run.images():
            name, digest, corrected = image.entry.image, image.digest(), image.corrected
            other = seen.setdefault(name, (run, digest, corrected))
            if other[0] is not run and digest != other[1] and digest and other[1] and corrected == other[2]:
                raise InputError(
                    f"{name} is in {other[0].output} and in {run.output}, with different labels",
                    "Images are identified by their paths below the labelled folder: label a folder that has them all, or omit one "
                    "of the runs.",
                )


def _join(folder: OutputFolder, run: Run, image: RunImage) -> None:
    """Copy the files of an image into the target, or move them if it is a shard of the target, and record it."""
    entry, rows = image.entry, folder.state.files(image.entry.image)
    before = folder.state.get(entry.image)
    move = run.output.is_relative_to(folder.path)
    if before is not None and not (image.corrected and not before.corrected):
        for row in image.rows.values() if move else ():
            run.files.remove(row)  # the target has the same; what a person changed stays, and is named
        return
    files, notes = list[StagedFile](), list[FileRow]()
    for row in image.rows.values():
        path = run.files.path(row.place)
        if row.digest == ROWS:
            notes.append(row)
        elif row.digest == LINK:
            continue  # `settle` makes links
        elif os.path.lexists(path):
            files.append(_stage(folder, row, path, move=move, by_hand=image.edited))
        elif (known := rows.get(row.place)) is not None and known.pending is not None:
            notes.append(row)  # a killed merge moved it
    for file in files:
        if file.row.name in folder.context.labels and not folder.files.may_put(
            file, rows.get(file.row.place), replace_edited=before is not None
        ):
            raise OutputError(
                folder.files.path(file.row.place),
                "it does not belong to the runs to join",
                "Move it away, or merge into another folder with argument `target`.",
            )
    kept = {name: run.state.rows(name, entry.image) for name in {row.name for row in notes if row.digest == ROWS}}
    labels = [file for file in files if file.row.name in folder.context.labels]
    others = tuple(file for file in files if file.row.name not in folder.context.labels)
    derived = Derived(files=others, rows=kept, notes=tuple(notes))
    ref = ImageRef(image.path(None), image.ref(None).relative)
    folder.put(ref, entry, labels, derived, rows)


def _stage(folder: OutputFolder, row: FileRow, path: Path, *, move: bool, by_hand: bool) -> StagedFile:
    """Copy a file beside its new place, or take it as it is. What a person changed keeps the record of what tipsseg wrote."""
    place = folder.files.path(row.place)
    if move:
        place.parent.mkdir(parents=True, exist_ok=True)
        return StagedFile(temporary=path, row=row, precious=True)
    status = path.stat()

    def copy(temporary: Path) -> None:
        shutil.copyfile(path, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))

    staged = folder.files.stage(row.name, place, copy, row.shows)
    return (
        replace(staged, row=replace(row, place=staged.row.place))
        if by_hand or staged.row.digest != row.digest
        else staged
    )


def _remove_shards(target: Path) -> None:
    """Remove the records of shards whose files were moved into the target."""
    place, doomed = target / SHARDS_FOLDER, target / STATE_FOLDER / f"{TEMPORARY_PREFIX}shards"
    left = next(_files_left(place), None)
    if left is not None:
        raise OutputError(
            left, "it does not belong to the runs to join", "Move it away, and run the same command again."
        )
    try:
        if place.is_dir():
            place.rename(doomed)  # partly removed shards would count as missing
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise output_error(place, error) from error


_RECORDS = {"run.json", "manifest.jsonl", "errors.jsonl", "classes.json", "state.db"}


def _files_left(place: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(place):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (
            Path(folder, name)
            for name in sorted([*names, *links])
            if name not in _RECORDS
            and not name.startswith("state.db.damaged")
            and not Path(folder, name).is_symlink()
            and not name.startswith(".tipsseg-")
        )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False
