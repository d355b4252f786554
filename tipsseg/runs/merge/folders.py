"""`tipsseg merge`: join several runs, or all shards of a run, into one output folder.

The target is a new folder, or the one folder that has all shards. A merge has five steps, and may be killed at any point:

    1  mark the target with a hidden file (store.lock)
    2  copy per-image files into a new folder; those of shards in the target are already in place
    3  write the records, run.json last (records)
    4  remove the shards
    5  remove the hidden file

The same command resumes a killed merge. If the target has a run.json, only the last two steps remain. Otherwise the merge starts
over, which is safe because the runs to join are intact, and skips files that are already copied.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, OutputError, RecordError, TipssegError, UsageError
from tipsseg.formats import FORMATS, image_folders
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.merge.images import orphan_error
from tipsseg.runs.merge.records import OWNER, merged_run, notes, run_paths, write_all
from tipsseg.runs.merge.refusals import (
    orphans_in_shards,
    refuse_another,
    refuse_broken_off,
    refuse_images,
    refuse_incomplete,
    refuse_other_meanings,
    refuse_target,
)
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.lock import LOCK_FILE, MERGE_FILE, FolderLock, begin_merge, is_begun
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.open_run import Run, open_runs, open_shards
from tipsseg.store.run_record import RUN_FILE, find_run, run_context
from tipsseg.store.shards import SHARDS_FOLDER, shards_in
from tipsseg.store.spec import check_folder
from tipsseg.store.state import STATE_FILE, STATE_FOLDER, State
from tipsseg.store.writing import RunContext
from tipsseg.util.files import TEMPORARY_PREFIX, clean_up_below, is_file, output_error, remove_file
from tipsseg.util.printable import pluralize

#: Temporary files of shards, see `RunContext.owner`.
_SHARD_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9]+-of-[0-9]+-")


def merge_folders(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    """Join the runs in output folders into `target`: a new folder, or the only one of `folders` if it has shards.

    Per-image files are copied into a new folder; shards in `target` become a whole run. Another call resumes a killed merge. Memory
    grows by a name per image.

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
    lock = FolderLock(target)
    try:
        if _settle(target):
            progress.note(f"Finished the interrupted merge into {target}.")
        clean_up_below((target / folder for folder in image_folders()), OWNER)
        named = [target if _same(folder, target) else folder for folder in folders]
        refuse_another(named, target)
        with ExitStack() as stack:
            runs = [run for folder in named for run in stack.enter_context(open_runs(folder, own=target))]
            told = _merge(named, _in_order(runs), target, progress)
        if told:
            _finish(target)  # the runs in the target are closed by now
            progress.end()
        progress.results([*run_paths(target, runs[0].formats), target / CLASSES_FILE])
        for line in told or [f"Nothing to join: {target} already has all images."]:
            progress.note(line)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command to resume")
        raise
    finally:
        lock.give_back()


def _merge(folders: Sequence[Path], runs: Sequence[Run], target: Path, progress: Progress) -> list[str]:
    """Join runs but keep the shards. Return lines about the result, or an empty list if the target already has all images."""
    refuse_broken_off(runs)
    if _holds_all(target, runs):
        return []
    refuse_target(folders, target)
    refuse_incomplete(runs)
    refuse_other_meanings(runs)
    info = merged_run(runs, target)
    context = replace(run_context(info), classes=runs[0].classes, owner=OWNER)
    with closing(State(target)) as records:
        context.ownership.load({}, records)
        number = refuse_images(runs, context)
        for line in notes(runs):
            progress.note(line)
        what = f"{pluralize(number, 'image')} of {_counted_runs(runs)}"
        progress.begin(f"Joining {what}.", number)
        _clean_up(target)
        begin_merge(target, folders)
        try:
            failed = write_all(runs, info, context, records, progress)
            _refuse_changed(runs, records, target)
        except TipssegError:
            records.close()
            _undo(context)
            raise
    told = [f"{pluralize(failed, 'image')} failed, see {target / ERRORS_FILE}"] if failed else []
    return [*told, f"Joined {what} into {target}"]


def _refuse_changed(runs: Sequence[Run], records: State, target: Path) -> None:
    """Raise InputError if a run has changed shards in `target` since they were read into `records`.

    From now on no run can begin, because run.json exists; see `store.lock`.
    """
    if runs[0].output == target:
        with open_shards(target) as shards:
            if not _has_entries(records, shards):
                raise RecordError(target, "its shards changed during the merge", "Run the same command again.")


def _undo(context: RunContext) -> None:
    """Remove the records that were written before an error; copied per-image files stay."""
    target, ownership = context.output, context.ownership
    with suppress(OutputError):  # the next merge removes the rest
        remove_file(target / RUN_FILE)
        copied = () if shards_in(target) else (target / CLASSES_FILE,)
        for path in (*copied, *run_paths(target, tuple(FORMATS))):
            ownership.remove(path, ())
        shutil.rmtree(target / STATE_FOLDER, ignore_errors=True)
        for name in (MANIFEST_FILE, ERRORS_FILE):
            remove_file(target / name)
        _clean_up(target)
        remove_file(target / MERGE_FILE)


def _settle(target: Path) -> bool:
    """Finish a merge into `target` that was killed after it wrote run.json; return True if it is finished now.

    If the shards have changed since they were joined, remove run.json instead, so that they are joined again.
    """
    if not (is_begun(target) and is_file(target / RUN_FILE)):
        return False
    try:
        with open_shards(target) as shards:
            whole = _holds_all(target, shards)
    except InputError:  # the run of a shard is in progress or was interrupted
        whole = False
    if whole:
        _finish(target)
    else:
        remove_file(target / RUN_FILE)
    return whole


def _finish(target: Path) -> None:
    """Remove the shards, then the mark of the merge. Another call resumes this if it is killed.

    Raises OutputError if other files are among the shards, or removal fails.
    """
    if shards_in(target):
        for path in orphans_in_shards(target):
            raise orphan_error(path)
        try:
            _sync(target)
            # Rename the folder first, so that no process takes the remaining shards for all of them.
            (target / SHARDS_FOLDER).rename(target / f"{TEMPORARY_PREFIX}{OWNER}{secrets.token_hex(8)}")
        except OSError as error:
            raise output_error(target, error) from error
    info = find_run(target)
    with closing(State(target)) as records:
        records.end(() if info is None else info.files)
    _clean_up(target)
    remove_file(target / MERGE_FILE)


def _sync(target: Path) -> None:
    """Sync the records to disk before the shards are removed. Raises OSError if syncing fails."""
    records = (target / name for name in (STATE_FILE, RUN_FILE, MANIFEST_FILE, ERRORS_FILE))
    for path in (*records, *run_paths(target, tuple(FORMATS))):
        if is_file(path):
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _clean_up(target: Path) -> None:
    """Remove temporary files from `target`, except those of shards, whose runs may be in progress."""
    try:
        for name in os.listdir(target):  # noqa: PTH208  names are enough
            path = target / name
            kept = name in (LOCK_FILE, MERGE_FILE) or _SHARD_TEMPORARY.match(name)
            if kept or not name.startswith(TEMPORARY_PREFIX):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise output_error(target, error) from error


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """Sort shards by number; leave whole runs in the given order."""
    return sorted(runs, key=lambda run: (run.shard.count, run.shard.index) if run.shard else (0, 0))


def _holds_all(target: Path, runs: Sequence[Run]) -> bool:
    """Return True if the target is a whole run with the entries of all runs."""
    info = find_run(target)
    if info is None or info.ended is None:
        return False
    with closing(State(target)) as records:
        return _has_entries(records, [run for run in runs if run.state != target])


def _has_entries(records: State, runs: Sequence[Run]) -> bool:
    return all(records.get(entry.image) == entry for run in runs for entry in run.entries())


def _counted_runs(runs: Sequence[Run]) -> str:
    shards = sum(run.shard is not None for run in runs)
    whole = len(runs) - shards
    return " and ".join([pluralize(whole, "run")] * bool(whole) + [pluralize(shards, "shard")] * bool(shards))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False
