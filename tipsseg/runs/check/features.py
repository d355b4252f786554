"""`tipsseg check` of a feature store: read each file, and compare it with its own header and the record of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tipsseg.errors import FeatureFileError, OutputError
from tipsseg.features.file import read_feature_file
from tipsseg.features.folder import (
    FEATURE_FILE,
    FILES_FOLDER,
    STORE_FILE,
    StoreRecord,
    describe_fault,
    list_files,
    read_store,
)
from tipsseg.run.entry import ERRORS_FILE
from tipsseg.run.shards import SHARDS_FOLDER
from tipsseg.run.state import STATE_FOLDER
from tipsseg.runs.common.progress import Progress
from tipsseg.util.files import TEMPORARY_PREFIX
from tipsseg.util.text import Problem, pluralize
from tipsseg.util.threads import map_in_order

#: Names that runs use in a store's folder.
_KNOWN = {STORE_FILE, FILES_FOLDER, ERRORS_FILE, STATE_FOLDER, SHARDS_FOLDER}


def is_store(folder: Path) -> bool:
    """Return True if a folder is a feature store, even a damaged one."""
    return os.path.lexists(folder / STORE_FILE) or os.path.lexists(folder / FILES_FOLDER)


def check_store(folder: Path, jobs: int, progress: Progress) -> Iterator[Problem]:
    """Find the faults of a feature store without loading the model.

    Args:
        folder: The folder of the store.
        jobs: Number of threads that read files.
        progress: Prints the progress, and notes about differences that are not problems.

    Yields:
        The problems, in file order.
    """
    try:
        record = read_store(folder)
    except OutputError as error:
        yield Problem(error.path, error.reason)
        return
    if record is None:
        yield Problem(folder / STORE_FILE, "missing")
        return
    for name in sorted(os.listdir(folder)):  # noqa: PTH208  names are enough
        if name not in _KNOWN and not name.startswith(TEMPORARY_PREFIX):
            yield Problem(folder / name, "not a feature file")
    files = list(list_files(folder))
    left = [path for path in files if path.name.startswith(TEMPORARY_PREFIX)]
    sound = [path for path in files if not path.name.startswith(TEMPORARY_PREFIX)]
    progress.begin(f"{pluralize(len(sound), 'feature file')} in {folder}.", len(sound))
    found = 0
    for problem in map_in_order(jobs, partial(_check_file, folder, record), sound):
        progress.advance()
        if problem is not None:
            found += 1
            yield problem
    progress.end()
    if left:
        progress.note(
            f"{pluralize(len(left), 'temporary file')} of runs that are in progress or were killed; a later run removes old ones."
        )
    looked = f"{pluralize(len(sound), 'file')} checked"
    progress.note(f"{looked}: {pluralize(found, 'problem') if found else 'nothing wrong'}.")


def _check_file(folder: Path, record: StoreRecord, path: Path) -> Problem | None:
    named = FEATURE_FILE.fullmatch(path.name)
    if (
        named is None
        or path.parent != folder / FILES_FOLDER / named[1][:2]
        or named[2] == str(record.recipe.short_side)  # no run reads such a file
    ):
        return Problem(path, "not a feature file")
    try:
        found = read_feature_file(path)
        side = int(named[2] or record.recipe.short_side)
        fault = describe_fault(replace(record, recipe=replace(record.recipe, short_side=side)), named[1], found)
        found.to_float32()
    except FeatureFileError as error:
        return Problem(path, error.reason)
    except ValueError as error:
        return Problem(path, str(error))
    return Problem(path, fault) if fault else None
