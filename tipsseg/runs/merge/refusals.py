"""What keeps runs and shards from being joined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.runs.merge.images import is_copied, orphan_error, places
from tipsseg.runs.merge.records import SET_ASIDE, run_paths
from tipsseg.store.classes_file import CLASSES_FILE
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.file_names import NameKey, OutputNames
from tipsseg.store.journal import journals_in
from tipsseg.store.lock import MERGE_FILE, finish_command, folders_of, is_begun
from tipsseg.store.manifest import MANIFEST_FILE, expected_files
from tipsseg.store.reader import RUN_AGAIN, FinishedRun, broken_conversion, conversion_begun, image_paths, read_entries
from tipsseg.store.run_record import RUN_FILE, differences
from tipsseg.store.shards import SHARDS_FOLDER, Shard, missing_shards, parse_folder, shards_in
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import TEMPORARY_PREFIX, output_error


def refuse_broken_off(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError where a run that had ended was started over, or a conversion begun, and broken off."""
    for run in runs:
        if run.info.converting:
            raise broken_conversion(run.output, conversion_begun(run.info))
        if journals_in(run.state):
            raise InputError(f"{run.state}: the run was broken off", RUN_AGAIN)


def refuse_target(folders: Sequence[Path], target: Path) -> None:
    """Raise OutputError where the target has a whole run, or shards that are not all that is joined."""
    if os.path.lexists(target / RUN_FILE) or (os.path.lexists(target / MANIFEST_FILE) and not is_begun(target)):
        raise OutputError(target, "it holds a whole run", "Choose a new folder with argument `target`.")
    if shards_in(target) and target not in folders:
        raise OutputError(
            target, "it holds shards that are not among those to join", "Choose a new folder with argument `target`."
        )
    if shards_in(target) and len(folders) > 1:
        raise OutputError(
            target,
            "it holds some of the shards to join, and others are elsewhere",
            "Choose a new folder with argument `target`. Only where one folder has all shards, the whole run can take their place.",
        )


def refuse_another(folders: Sequence[Path], target: Path) -> None:
    """Raise OutputError where a merge of other folders into `target` has begun, whose files are in it."""
    begun = {os.path.realpath(folder) for folder in folders_of(target)}
    if begun and begun != {os.path.realpath(folder) for folder in folders}:
        raise OutputError(
            target,
            "a merge of other folders into it has not ended",
            f"To give that merge up, remove {target / MERGE_FILE} and what was written. To finish it: {finish_command(target)}",
        )


def refuse_incomplete(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError where a shard is missing, or there twice."""
    shards: dict[Shard, FinishedRun] = {}
    for run in runs:
        if run.shard is None:
            continue
        other = shards.setdefault(run.shard, run)
        if other is not run:
            raise InputError(
                f"shard {run.shard} is in {other.output} and in {run.output}",
                f"Join the shards of each run by themselves first, as by tipsseg merge {run.output} -o {run.output}",
            )
    folders = {shard.count: run.output for shard, run in shards.items()}
    if len(folders) > 1:
        (one, first), (two, second) = list(folders.items())[:2]
        raise InputError(
            f"{first} has shards of {one}, {second} of {two} in all",
            "The shards of a run have one number of parts; join those of each run by themselves first.",
        )
    for count in folders:
        if gaps := missing_shards([shard.index for shard in shards], count):
            where = ", ".join(dict.fromkeys(str(run.output) for run in shards.values()))
            raise InputError(
                f"{where}: of {count} shards, these are missing: {gaps}",
                f"Label what is missing with argument `shard`=I/{count}, or name the folder that it is in too.",
            )


def refuse_other_meanings(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError where not all runs are of one model, one vocabulary, one dtype and the same formats."""
    first = runs[0]
    for run in runs[1:]:
        if other := differences(first.info, run.info):
            raise InputError(
                f"{run.state}: labelled with another {' and another '.join(other)} than {first.state}",
                "Ids would mean other things; join only what was labelled with the same model and vocabulary.",
            )
        if run.info.dtype != first.info.dtype:
            raise InputError(
                f"{run.state}: labelled in {run.info.dtype}, and {first.state} in {first.info.dtype}",
                "The labels would differ by rounding; label one of them again with argument `dtype`.",
            )
        if set(run.formats) != set(first.formats):
            raise InputError(
                f"{run.state} has the formats {', '.join(run.formats)}; {first.state} has {', '.join(first.formats)}",
                "Files would be missing; write what is missing first, with tipsseg convert.",
            )


def refuse_other_places(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError where files of images are not where the joined run has them."""
    options = runs[0].info.spec.files
    found = (
        f"{run.state}: {file} belongs to {expected[name]} by the `val_fraction` of {runs[0].state}"
        for run in runs
        for entry in read_entries(run)
        for expected in [expected_files(entry.image, entry.formats, options)]
        for name, file in entry.files.items()
        if file != expected[name]
    )
    fraction = options.val_fraction or 0
    _refuse_any(
        found,
        f"Run the command that labelled it again with argument `val_fraction`={fraction:g}, which moves the files.",
    )


def refuse_doubles(runs: Sequence[FinishedRun], key: NameKey) -> int:
    """Raise InputError where two runs have one image, or two images would have one file; returns how many images there are.

    `key` tells which names are one to the file system of the target.
    """
    owners: dict[str, FinishedRun] = {}
    _refuse_any(
        _doubles(runs, key, owners),
        "Images are told apart by their paths below the folder that was labelled: label a folder that has them all, "
        "or leave one of the runs out.",
    )
    return len(owners)


def refuse_missing_files(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError where a file that a manifest names is not there."""
    gone = (
        f"{path} is not there"
        for run in runs
        for entry in read_entries(run)
        for path in image_paths(run, entry)
        if not path.is_file()
    )
    _refuse_any(gone, "Run the command again that labelled it: what is gone is made again.")


def refuse_orphans(runs: Sequence[FinishedRun], context: RunContext) -> None:
    """Raise OutputError for a file in the target that is not of the runs, and would be replaced or removed.

    The context has the ownership of the target, which knows what a merge wrote that was stopped.
    """
    target = context.output
    records = () if is_begun(target) else (RUN_FILE, MANIFEST_FILE, ERRORS_FILE, *SET_ASIDE)
    for path in chain((target / name for name in records), orphans_in_shards(target)):
        if os.path.lexists(path):
            raise orphan_error(path)
    formats = {name for run in runs for entry in read_entries(run) for name in entry.formats}
    classes = () if runs[0].output == target else (target / CLASSES_FILE,)
    for path in (*classes, *run_paths(target, sorted(formats.union(runs[0].formats)))):
        if not context.ownership.is_unchanged(path):
            raise orphan_error(path)
    for run in runs:
        for entry in read_entries(run):
            for path, place in places(run, entry, target):
                is_copied(path, place)


def orphans_in_shards(target: Path) -> Iterator[Path]:
    """What is among the shards of `target`, with which it would be removed, and is not theirs. Raises OutputError."""
    shards = target / SHARDS_FOLDER
    if not shards_in(target):
        return
    expected = _shard_files()
    try:
        for path in _below(shards):
            shard, *inner = path.relative_to(shards).parts
            known = path.name.startswith(TEMPORARY_PREFIX) or "/".join(inner) in expected
            if parse_folder(shard) is None or not known:
                yield path
    except OSError as error:
        raise output_error(shards, error) from error


def _doubles(runs: Sequence[FinishedRun], key: NameKey, owners: dict[str, FinishedRun]) -> Iterator[str]:
    """What is wrong with each image that cannot be joined; `owners` gets the run of each image."""
    # One way of naming, as `refuse_other_meanings` saw to it; and any formats, as images may be left in those of earlier runs.
    names = OutputNames(key, runs[0].names, FORMATS)
    for run in runs:
        for entry in read_entries(run):
            owner = owners.setdefault(entry.image, run)
            if owner is not run:
                yield f"{entry.image} is in {owner.state} and in {run.state}"
                continue
            ref = ImageRef(Path(f"{entry.image} of {run.state}"), PurePosixPath(entry.image))
            if has_image_files(entry.formats) and (what := names.take(ref)):
                yield what


def _refuse_any(found: Iterator[str], hint: str) -> None:
    """Raise InputError with the first of what was found, and how many more there are."""
    first = next(found, None)
    if first is not None:
        more = sum(1 for _ in found)
        raise InputError(f"{first}, and {more} more" if more else first, hint)


def _below(top: Path) -> Iterator[Path]:
    """The files, and the links to folders, below a folder, in a fixed order. Raises OSError."""
    for folder, folders, names in os.walk(top, onerror=_fail):
        folders.sort()
        for name in sorted((*names, *(each for each in folders if Path(folder, each).is_symlink()))):
            yield Path(folder, name)


def _fail(error: OSError) -> None:
    raise error


def _shard_files() -> frozenset[str]:
    """What there may be in the folder of a shard, but for temporary files."""
    of_formats = (file for form in FORMATS.values() for file in form.files)
    return frozenset({RUN_FILE, MANIFEST_FILE, ERRORS_FILE, *SET_ASIDE, *of_formats})
