"""`tipsseg merge`: joins the records of several runs, or of all shards of a run, into one output folder.

parts           what is joined, read from its folders
merge_refusals  what keeps it from being joined
merge_record    run.json of the whole
merge_files     files of images, files of whole formats, manifest.jsonl, errors.jsonl
merge_stage     how the records come into the target, whenever the merge is stopped
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, UsageError
from tipsseg.runs.merge.files import (
    copy_classes,
    copy_own_files,
    join_errors,
    keep_asides,
    refuse_strangers,
    run_paths,
    write_joined_run,
    write_run_files,
)
from tipsseg.runs.merge.record import merged_info, notes
from tipsseg.runs.merge.refusals import (
    refuse_broken_off,
    refuse_doubles,
    refuse_incomplete,
    refuse_missing_files,
    refuse_other_meanings,
    refuse_target,
)
from tipsseg.runs.progress import Progress
from tipsseg.store.classes_file import FILE_NAME as CLASSES_FILE
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.file_names import name_key
from tipsseg.store.lock import FolderLock
from tipsseg.store.manifest import Manifest
from tipsseg.store.merge_stage import OWNER, commit, finish, new_stage, refuse_another, settle, sweep_files, take_back
from tipsseg.store.reader import FinishedRun, find_runs, finished_context, read_entries, refuse_at_work
from tipsseg.store.run_record import find_run
from tipsseg.store.spec import check_folder
from tipsseg.store.summary import total
from tipsseg.util.ownership import Ownership
from tipsseg.util.printable import counted


def merge_folders(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    """Join what is in these output folders into `target`, which may be new, or have shards that are among those to join.

    Files of images are copied, but for those that are in `target` already; shards in `target` become a whole run. A merge that was
    stopped goes on when it is run again. Memory grows by a name and an offset an image.

    Raises UsageError for a folder that is named twice, InputError for parts that cannot be joined, and OutputError for a target
    that cannot be written, or that has other files where those of the merge belong.
    """
    for number, folder in enumerate(folders):
        if any(_same(folder, other) for other in folders[:number]):
            raise UsageError(f"{folder} is named twice", "Name each output folder once.")
    check_folder(target)
    claim = FolderLock(target)
    try:
        if settle(target):
            progress.note(f"The merge into {target} that had not ended is finished.")
        sweep_files(target)
        _merge([target if _same(folder, target) else folder for folder in folders], target, progress)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("the same command goes on from there")
        raise
    finally:
        claim.give_back()


def _merge(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    refuse_another(target, folders)
    parts = _in_order([part for folder in folders for part in find_runs(folder, target)])
    refuse_broken_off(parts)
    if _has_all(target, parts):
        progress.results([*run_paths(target, parts[0].formats), target / CLASSES_FILE])
        progress.note(f"Nothing to join: all of it is in {target} already.")
    else:
        refuse_target(folders, target)
        refuse_incomplete(parts)
        refuse_other_meanings(parts)
        number = refuse_doubles(parts, name_key(target))
        refuse_missing_files(parts)
        refuse_strangers(parts, target)
        for line in notes(parts):
            progress.note(line)
        what = f"{counted(number, 'image')} of {_counted_parts(parts)}"
        progress.begin(f"{what} to be joined.", number)
        failed = _join(folders, parts, target, progress)
        progress.end()
        progress.results([*run_paths(target, parts[0].formats), target / CLASSES_FILE])
        if failed:
            progress.note(f"{counted(failed, 'image')} failed, see {target / ERRORS_FILE}")
        progress.note(f"{what} joined, into {target}")


def _join(folders: Sequence[Path], parts: Sequence[FinishedRun], target: Path, progress: Progress) -> int:
    """Returns how many images failed."""
    info = merged_info(parts, target)
    with new_stage(target, folders) as stage:
        if all(part.output != target for part in parts):
            copy_classes(parts[0].output, stage)
        with closing(Manifest(stage)) as manifest:
            for part in parts:
                for entry in read_entries(part):
                    manifest.add(entry)
            manifest.tidy()
            context = finished_context(replace(parts[0], info=info), target, stage)
            write_run_files(parts, manifest, context)
            failed = join_errors(parts, manifest, stage)
            summary = total((entry.summary for entry in manifest.entries()), context.classes)
        keep_asides(parts, target, stage)
        write_joined_run(parts, replace(info, summary=summary.record()), stage, context.ownership)
    copies = Ownership(target, target, OWNER)
    for part in parts:
        for entry in read_entries(part):
            if part.output != target:
                copy_own_files(part, entry, target, copies)
            progress.advance()
    commit(target)
    try:
        for part in parts:
            refuse_at_work(part.state, target)  # it may have begun meanwhile, and from now on it cannot
    except InputError:
        take_back(target)
        raise
    finish(target)
    return failed


def _in_order(parts: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Shards by their number, whatever the order of their folders; whole runs as they were named."""
    return sorted(parts, key=lambda part: (part.shard.count, part.shard.index) if part.shard else (0, 0))


def _has_all(target: Path, parts: Sequence[FinishedRun]) -> bool:
    """Whether the target is a whole run that has the images of all parts, labelled when theirs were."""
    info = find_run(target)
    if info is None or info.ended is None:
        return False
    with closing(Manifest(target)) as manifest:
        return all(
            manifest.get(entry.image) == entry for part in parts if part.state != target for entry in read_entries(part)
        )


def _counted_parts(parts: Sequence[FinishedRun]) -> str:
    shards = sum(part.shard is not None for part in parts)
    runs = len(parts) - shards
    return " and ".join([counted(runs, "run")] * bool(runs) + [counted(shards, "shard")] * bool(shards))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False
