"""`tipsseg merge`: joins the records of several runs, or of all shards of a run, into one output folder.

parts           what is joined, read from its folders
merge_refusals  what keeps it from being joined
merge_record    run.json of the whole
merge_files     files of images, files of whole formats, manifest.jsonl, errors.jsonl
merge_stage     how the records come into the target, whenever the merge is killed
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tipsseg.claim import Claim
from tipsseg.error_log import ERRORS_FILE
from tipsseg.errors import OutputError, UsageError
from tipsseg.file_names import name_key
from tipsseg.manifest import MANIFEST_FILE, Manifest
from tipsseg.merge_files import copy_classes, copy_own_files, join_errors, run_paths, write_run_files
from tipsseg.merge_record import merged_record, notes
from tipsseg.merge_refusals import (
    refuse_broken_off,
    refuse_doubles,
    refuse_incomplete,
    refuse_missing_files,
    refuse_other_meanings,
)
from tipsseg.merge_stage import commit, drop_stage, make_stage, settle, sweep_files
from tipsseg.part_context import run_context
from tipsseg.parts import Part, find_parts, read_entries, refuse_at_work
from tipsseg.progress import Progress, counted
from tipsseg.request import check_folder
from tipsseg.run_record import RUN_FILE, read_run, write_run
from tipsseg.shards import SHARDS_FOLDER
from tipsseg.writers.classes import FILE_NAME as CLASSES_FILE


def merge_folders(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    """Join what is in these output folders into `target`, which may be new, or one of them.

    Files of images are copied, but for those that are in `target` already; shards in `target` become a whole run. Memory grows by a
    name and an offset an image. Raises UsageError for a folder that is named twice, InputError for parts that cannot be joined, and
    OutputError for a target that cannot be written.
    """
    for number, folder in enumerate(folders):
        if any(_same(folder, other) for other in folders[:number]):
            raise UsageError(f"{folder} is named twice", "Name each output folder once.")
    check_folder(target)
    claim = Claim(target)
    try:
        settle(target)
        if claim.left_over:
            sweep_files(target)
        _merge([target if _same(folder, target) else folder for folder in folders], target, progress)
    finally:
        claim.give_back()


def _merge(folders: Sequence[Path], target: Path, progress: Progress) -> None:
    parts = _in_order([part for folder in folders for part in find_parts(folder, target)])
    refuse_broken_off(parts)
    if _has_all(target, parts):
        progress.results([*run_paths(target, parts[0].formats), target / CLASSES_FILE])
        progress.note(f"Nothing to join: all of it is in {target} already.")
    else:
        _refuse_target(folders, target)
        refuse_incomplete(parts)
        refuse_other_meanings(parts)
        number = refuse_doubles(parts, name_key(target))
        refuse_missing_files(parts)
        for line in notes(parts):
            progress.note(line)
        what = f"{counted(number, 'image')} of {_counted_parts(parts)}"
        progress.begin(f"{what} to be joined.", number)
        try:
            failed = _join(parts, target, progress)
        finally:
            drop_stage(target)
        progress.end()
        progress.results([*run_paths(target, parts[0].formats), target / CLASSES_FILE])
        if failed:
            progress.note(f"{counted(failed, 'image')} failed, see {target / ERRORS_FILE}")
        progress.note(f"{what} joined, into {target}")


def _join(parts: Sequence[Part], target: Path, progress: Progress) -> int:
    """Returns how many images failed."""
    record = merged_record(parts)
    stage = make_stage(target)
    context = run_context(parts[0], record, target, stage)
    copy_classes(parts[0].output, target)
    with closing(Manifest(stage)) as manifest:
        for part in parts:
            for entry in read_entries(part):
                if part.output != target:
                    copy_own_files(part, entry, target)
                manifest.add(entry)
                progress.advance()
        manifest.tidy()
        write_run_files(parts, manifest, context)
        failed = join_errors(parts, manifest, stage)
    write_run(stage, record)
    for part in parts:
        refuse_at_work(part.records, target)  # it may have begun meanwhile
    commit(target)
    return failed


def _in_order(parts: Sequence[Part]) -> list[Part]:
    """Shards by their number, whatever the order of their folders; whole runs as they were named."""
    return sorted(parts, key=lambda part: (part.shard.count, part.shard.index) if part.shard else (0, 0))


def _has_all(target: Path, parts: Sequence[Part]) -> bool:
    """Whether the target is a whole run that has the images of all parts, labelled when theirs were."""
    record = read_run(target)
    if record is None or record.get("ended") is None:
        return False
    with closing(Manifest(target)) as manifest:
        return all(
            manifest.get(entry.image) == entry
            for part in parts
            if part.records != target
            for entry in read_entries(part)
        )


def _refuse_target(folders: Sequence[Path], target: Path) -> None:
    if target not in folders and any(
        os.path.lexists(target / name) for name in (RUN_FILE, MANIFEST_FILE, SHARDS_FOLDER)
    ):
        raise OutputError(
            target,
            "it holds a run that is not among those to join",
            "Choose another folder with -o, or name it among those to join.",
        )


def _counted_parts(parts: Sequence[Part]) -> str:
    shards = sum(part.shard is not None for part in parts)
    runs = len(parts) - shards
    return " and ".join([counted(runs, "run")] * bool(runs) + [counted(shards, "shard")] * bool(shards))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False
