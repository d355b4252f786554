"""Refuse to join runs and shards that do not match, and a target that has other files."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.options.shard import Shard
from tipsseg.runs.merge.images import files, is_copied, orphan_error, places
from tipsseg.runs.merge.records import run_paths
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.file_names import OutputNames, name_key
from tipsseg.store.lock import MERGE_FILE, finish_command, folders_of, is_begun
from tipsseg.store.manifest import MANIFEST_FILE, expected_files
from tipsseg.store.open_run import RUN_AGAIN, Run, broken_conversion, conversion_begun
from tipsseg.store.resuming.differences import differences
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import SHARDS_FOLDER, missing_shards, parse_folder, shards_in
from tipsseg.store.state import STATE_FILE
from tipsseg.store.stored_image import RunImage
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef, name_order
from tipsseg.util.files import TEMPORARY_PREFIX, output_error


def refuse_broken_off(runs: Sequence[Run]) -> None:
    """Raise InputError if a run, or a conversion in a finished run, was interrupted."""
    for run in runs:
        if run.info.converting:
            raise broken_conversion(run.output, conversion_begun(run.info, run.records))
        if run.records.stale:
            raise InputError(f"{run.state}: the run was interrupted", RUN_AGAIN)


def refuse_target(folders: Sequence[Path], target: Path) -> None:
    """Raise OutputError if the target has a whole run, or shards beside those of other folders."""
    if os.path.lexists(target / RUN_FILE) or (os.path.lexists(target / MANIFEST_FILE) and not is_begun(target)):
        raise OutputError(target, "it holds a whole run", "Pass a new folder as argument `target`.")
    if shards_in(target) and target not in folders:
        raise OutputError(
            target, "it holds shards that are not among those to join", "Pass a new folder as argument `target`."
        )
    if shards_in(target) and len(folders) > 1:
        raise OutputError(
            target,
            "it holds some of the shards to join, but others are elsewhere",
            "Pass a new folder as argument `target`. Shards can be joined in place only if one folder has them all.",
        )


def refuse_another(folders: Sequence[Path], target: Path) -> None:
    """Raise OutputError if `target` has files of an unfinished merge of other folders."""
    begun = {os.path.realpath(folder) for folder in folders_of(target)}
    if begun and begun != {os.path.realpath(folder) for folder in folders}:
        raise OutputError(
            target,
            "a merge of other folders into it is unfinished",
            f"To abandon that merge, remove {target / MERGE_FILE} and the files it wrote. To finish it: {finish_command(target)}",
        )


def refuse_incomplete(runs: Sequence[Run]) -> None:
    """Raise InputError if a shard is missing, or in two folders."""
    shards: dict[Shard, Run] = {}
    for run in runs:
        if run.shard is None:
            continue
        other = shards.setdefault(run.shard, run)
        if other is not run:
            raise InputError(
                f"shard {run.shard} is in {other.output} and in {run.output}",
                f"Join the shards of each run separately first: tipsseg merge {run.output} -o {run.output}",
            )
    folders = {shard.count: run.output for shard, run in shards.items()}
    if len(folders) > 1:
        (one, first), (two, second) = list(folders.items())[:2]
        raise InputError(
            f"{first} has shards of a run in {one} parts, but {second} of a run in {two} parts",
            "All shards of a run have the same number of parts. Join the shards of each run separately first.",
        )
    for count in folders:
        if gaps := missing_shards([shard.index for shard in shards], count):
            where = ", ".join(dict.fromkeys(str(run.output) for run in shards.values()))
            raise InputError(
                f"{where}: of {count} shards, these are missing: {gaps}",
                f"Label the missing shards with argument `shard`=I/{count}, or pass their folder too.",
            )


def refuse_other_meanings(runs: Sequence[Run]) -> None:
    """Raise InputError if the runs differ in model, vocabulary, dtype or formats."""
    first = runs[0]
    for run in runs[1:]:
        if other := differences(first.info, run.info):
            raise InputError(
                f"{run.state} and {first.state} differ in their {' and '.join(other)}",
                "Join only runs with the same model, vocabulary and argument `names`: otherwise ids or files would conflict.",
            )
        if run.info.dtype != first.info.dtype:
            raise InputError(
                f"{run.state}: labelled in {run.info.dtype}, but {first.state} in {first.info.dtype}",
                "The labels would differ by rounding; label one of them again with argument `dtype`.",
            )
        if set(run.formats) != set(first.formats):
            raise InputError(
                f"{run.state} has the formats {', '.join(run.formats)}; {first.state} has {', '.join(first.formats)}",
                "Write the missing formats first with tipsseg convert.",
            )


@dataclass(slots=True)
class _Faults:
    """The first of several faults, the number of the others, and a hint."""

    hint: str
    first: str = ""
    more: int = 0

    def add(self, what: str) -> None:
        self.more += bool(self.first)
        self.first = self.first or what

    def refuse(self) -> None:
        if self.first:
            raise InputError(f"{self.first}, and {self.more} more" if self.more else self.first, self.hint)


def refuse_images(runs: Sequence[Run], context: RunContext) -> int:
    """Check all images before copying any, and return their number.

    Args:
        runs: The runs, which all have the same option `names`.
        context: Context of the target, whose ownership includes the files of a killed merge.

    Raises:
        InputError: Files are missing or not where the joined run expects them, two runs have the same image, or two images would
            share a file.
        OutputError: A file in the target that does not belong to the runs would be replaced or removed.
    """
    options, target = runs[0].info.spec.files, context.output
    misplaced = _Faults(
        f"Run the original command again with argument `val_fraction`={options.val_fraction or 0:g}, which moves the files."
    )
    doubled = _Faults(
        "Images are identified by their paths below the labelled folder: label a folder that has them all, "
        "or omit one of the runs."
    )
    gone = _Faults("Run the original command again, which rewrites missing files.")
    held = {name for run in runs for group in run.records.formats() for name in group}
    # All formats, because images may have formats of earlier runs. Numbered files can only meet the folders of their own format.
    names = OutputNames(
        name_key(target), options.names, [name for name in FORMATS if name in held or not FORMATS[name].has_parts]
    )
    formats = set(runs[0].formats)
    orphan: OutputError | None = None
    before: RunImage | None = None
    number = 0
    # By name, so that the same image of two runs comes twice in a row.
    for image in heapq.merge(*(run.images() for run in runs), key=lambda image: name_order(image.entry.image)):
        entry, run = image.entry, image.run
        formats.update(entry.formats)
        expected = expected_files(entry, entry.formats, options)
        for key, file in entry.files.items():
            if file != expected[key]:
                misplaced.add(
                    f"{run.state}: {file} should be {expected[key]} for the `val_fraction` of {runs[0].state}"
                )
        ref = ImageRef(Path(f"{entry.image} of {run.state}"), PurePosixPath(entry.image))
        if before is not None and before.entry.image == entry.image:
            doubled.add(f"{entry.image} is in {before.run.state} and in {run.state}")
        elif has_image_files(entry.formats) and (what := names.take(ref)):
            doubled.add(what)
        before, number = image, number + 1
        for path in files(image):
            if not path.is_file():
                gone.add(f"{path} is missing")
        try:
            for path, place in places(image, target) if orphan is None else ():
                is_copied(path, place)
        except OutputError as error:  # raised after the faults of the runs
            orphan = error
    for faults in (misplaced, doubled, gone):
        faults.refuse()
    _refuse_orphans(runs, context, formats)
    if orphan is not None:
        raise orphan
    return number


def _refuse_orphans(runs: Sequence[Run], context: RunContext, formats: Iterable[str]) -> None:
    """Raise OutputError if records in the target, or its files for the whole run in these formats, do not belong to the runs."""
    target = context.output
    records = () if is_begun(target) else (RUN_FILE, MANIFEST_FILE, ERRORS_FILE)
    for path in chain((target / name for name in records), orphans_in_shards(target)):
        if os.path.lexists(path):
            raise orphan_error(path)
    classes = () if runs[0].output == target else (target / CLASSES_FILE,)
    for path in (*classes, *run_paths(target, sorted(formats))):
        if not context.ownership.is_unchanged(path):
            raise orphan_error(path)


def orphans_in_shards(target: Path) -> Iterator[Path]:
    """Yield files that tipsseg did not write among the shards of `target`: they would be removed with the shards."""
    shards = target / SHARDS_FOLDER
    if not shards_in(target):
        return
    of_formats = {file for form in FORMATS.values() for file in form.files}
    known = {STATE_FILE, RUN_FILE, MANIFEST_FILE, ERRORS_FILE, *of_formats}
    try:
        for folder, folders, names in os.walk(shards, onerror=_fail):
            folders.sort()
            links = (each for each in folders if Path(folder, each).is_symlink())
            for path in (Path(folder, name) for name in sorted((*names, *links))):
                shard, *inner = path.relative_to(shards).parts
                is_known = path.name.startswith(TEMPORARY_PREFIX) or "/".join(inner) in known
                if parse_folder(shard) is None or not is_known:
                    yield path
    except OSError as error:
        raise output_error(shards, error) from error


def _fail(error: OSError) -> None:
    raise error
