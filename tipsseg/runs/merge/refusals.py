"""What keeps runs and shards from being joined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.store.file_names import NameKey, OutputNames
from tipsseg.store.journal import journals_in
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.reader import RUN_AGAIN, FinishedRun, broken_conversion, conversion_begun, image_paths, read_entries
from tipsseg.store.run_record import RUN_FILE, differences
from tipsseg.store.shards import Shard, missing_shards, shards_in
from tipsseg.types import ImageRef


def refuse_broken_off(parts: Sequence[FinishedRun]) -> None:
    """Raise InputError where a run that had ended was begun anew, or a conversion begun, and broken off."""
    for part in parts:
        if part.info.converting:
            raise broken_conversion(part.output, conversion_begun(part.info))
        if journals_in(part.state):
            raise InputError(f"{part.state}: the run was broken off", RUN_AGAIN)


def refuse_target(folders: Sequence[Path], target: Path) -> None:
    """Raise OutputError where the target has a whole run, or shards that are not among those to join."""
    if any(os.path.lexists(target / name) for name in (RUN_FILE, MANIFEST_FILE)):
        raise OutputError(target, "it holds a whole run", "Choose a new folder with -o.")
    if shards_in(target) and target not in folders:
        raise OutputError(
            target,
            "it holds shards that are not among those to join",
            "Choose a new folder with -o, or name it among those to join.",
        )


def refuse_incomplete(parts: Sequence[FinishedRun]) -> None:
    """Raise InputError where a shard is missing, or there twice."""
    shards: dict[Shard, FinishedRun] = {}
    for part in parts:
        if part.shard is None:
            continue
        other = shards.setdefault(part.shard, part)
        if other is not part:
            raise InputError(
                f"shard {part.shard} is in {other.output} and in {part.output}",
                f"Join the shards of each run by themselves first, as by tipsseg merge {part.output} -o {part.output}",
            )
    folders = {shard.count: part.output for shard, part in shards.items()}
    if len(folders) > 1:
        (one, first), (two, second) = list(folders.items())[:2]
        raise InputError(
            f"{first} has shards of {one}, {second} of {two} in all",
            "The shards of a run have one number of parts; join those of each run by themselves first.",
        )
    for count in folders:
        if gaps := missing_shards([shard.index for shard in shards], count):
            where = ", ".join(dict.fromkeys(str(part.output) for part in shards.values()))
            raise InputError(
                f"{where}: of {count} shards, these are missing: {gaps}",
                f"Label what is missing with --shard I/{count}, or name the folder that it is in too.",
            )


def refuse_other_meanings(parts: Sequence[FinishedRun]) -> None:
    """Raise InputError where not all parts are of one model, one vocabulary, one dtype and the same formats."""
    first = parts[0]
    for part in parts[1:]:
        if other := differences(first.info, part.info):
            raise InputError(
                f"{part.state}: labelled with another {' and another '.join(other)} than {first.state}",
                "Ids would mean other things; join only what was labelled with the same model and vocabulary.",
            )
        if part.info.dtype != first.info.dtype:
            raise InputError(
                f"{part.state}: labelled in {part.info.dtype}, and {first.state} in {first.info.dtype}",
                "The labels would differ by rounding; label one of them again with --dtype.",
            )
        if set(part.formats) != set(first.formats):
            raise InputError(
                f"{part.state} has the formats {', '.join(part.formats)}; {first.state} has {', '.join(first.formats)}",
                "Files would be missing; write what is missing first, with tipsseg convert.",
            )


def refuse_doubles(parts: Sequence[FinishedRun], key: NameKey) -> int:
    """Raise InputError where two parts have one image, or two images would have one file; returns how many images there are.

    `key` tells which names are one to the file system of the target.
    """
    owners: dict[str, FinishedRun] = {}
    _refuse_any(
        _doubles(parts, key, owners),
        "Images are told apart by their paths below the folder that was labelled: label a folder that has them all, "
        "or leave one of the runs out.",
    )
    return len(owners)


def refuse_missing_files(parts: Sequence[FinishedRun]) -> None:
    """Raise InputError where a file that a manifest names is not there."""
    gone = (
        f"{path} is not there"
        for part in parts
        for entry in read_entries(part)
        for path in image_paths(part, entry)
        if not path.is_file()
    )
    _refuse_any(gone, "Run the command again that labelled it: what is gone is made anew.")


def _doubles(parts: Sequence[FinishedRun], key: NameKey, owners: dict[str, FinishedRun]) -> Iterator[str]:
    """What is wrong with each image that cannot be joined; `owners` gets the part of each image."""
    # One way of naming, as `refuse_other_meanings` saw to it; and any formats, as images may be left in those of earlier runs.
    names = OutputNames(key, parts[0].names, FORMATS)
    for part in parts:
        for entry in read_entries(part):
            owner = owners.setdefault(entry.image, part)
            if owner is not part:
                yield f"{entry.image} is in {owner.state} and in {part.state}"
                continue
            ref = ImageRef(Path(f"{entry.image} of {part.state}"), PurePosixPath(entry.image))
            if has_image_files(entry.formats) and (what := names.take(ref)):
                yield what


def _refuse_any(found: Iterator[str], hint: str) -> None:
    """Raise InputError with the first of what was found, and how many more there are."""
    first = next(found, None)
    if first is not None:
        more = sum(1 for _ in found)
        raise InputError(f"{first}, and {more} more" if more else first, hint)
