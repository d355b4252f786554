"""Rules of run.json and classes.json: which runs an output folder holds, whether they ended, and what their ids mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.errors import OutputError, RecordError
from tipsseg.formats.classes_file import CLASSES_FILE, class_names
from tipsseg.formats.problem import Problem, class_faults
from tipsseg.options.shard import Shard
from tipsseg.store.lock import finish_command, is_begun, is_locked, is_unfinished
from tipsseg.store.open_run import OTHER_VERSION, broken_conversion, check_shard, conversion_begun, read_record
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import SHARDS_FOLDER, missing_shards, shards_in, state_folder
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.types import ignore_id
from tipsseg.util.files import is_folder, read_regular, reason_of
from tipsseg.util.json_values import parse, take


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs in an output folder.

    Attributes:
        runs: What each run.json says; `converting` has the formats of any conversion that was begun and has not ended.
        problems: What is wrong with them.
        whole: Whether all runs are there and have ended.
    """

    runs: tuple[RunInfo, ...]
    problems: tuple[Problem, ...]
    whole: bool


def find_runs(folder: Path) -> Runs:
    """Find the runs in an output folder: one, or one for each of its shards."""
    if not is_folder(folder):
        return Runs((), (Problem(folder, "not a folder" if os.path.lexists(folder) else "no such folder"),), False)
    unfinished = Problem(folder, f"a merge into it has not ended; finish it: {finish_command(folder)}")
    if is_unfinished(folder):
        return Runs((), (unfinished,), False)
    place = folder / SHARDS_FOLDER
    shards = shards_in(folder)
    problems = [unfinished] if is_begun(folder) else []
    if os.path.lexists(folder / RUN_FILE):
        found = [_read_run(folder, None)]
        if shards:
            problems.append(Problem(place, f"shards beside the {RUN_FILE} of a whole run"))
    elif shards:
        found = [_read_run(state_folder(folder, shard), shard) for shard in shards]
        problems += _missing_shards(place, shards)
    else:
        return Runs((), (Problem(folder, f"not an output folder of tipsseg label: no {RUN_FILE} in it"),), False)
    runs = tuple(run for run in found if isinstance(run, RunInfo))
    for each in found:
        if isinstance(each, Problem):
            problems.append(each)
        elif each.ended is None:
            problems.append(Problem(run_path(each), "the run was broken off; run the same command again"))
        elif each.converting:
            error = broken_conversion(folder, each.converting)
            problems.append(Problem(run_path(each), f"{error.message.removeprefix(f'{folder}: ')}. {error.hint}"))
        elif each.digest != runs[0].digest:
            problems.append(Problem(run_path(each), f"labelled with other settings than {run_path(runs[0])}"))
    return Runs(runs, tuple(problems), not problems)


def run_path(run: RunInfo) -> Path:
    return run.spec.state / RUN_FILE


def check_classes(folder: Path, run: RunInfo) -> Iterator[Problem]:
    """Hold classes.json against the meaning that the ids had in the run."""
    path = folder / CLASSES_FILE
    try:
        record = parse(read_regular(path))
        classes = class_names(record)
        ignore = take(record, "ignore", int)
    except (OSError, ValueError) as error:
        yield _unreadable(path, error)
        return
    names = run.names
    for what in class_faults(classes, names):
        yield Problem(path, what)
    if ignore != ignore_id(len(names)):
        yield Problem(path, f"`ignore` is {ignore}, not {ignore_id(len(names))}")


def _missing_shards(place: Path, shards: Sequence[Shard]) -> Iterator[Problem]:
    counts = sorted({shard.count for shard in shards})
    if len(counts) > 1:
        yield Problem(
            place, f"shards of {' and '.join(map(str, counts))} parts; those of one run have one number of parts"
        )
    elif gaps := missing_shards([shard.index for shard in shards], counts[0]):
        yield Problem(
            place, f"of {counts[0]} shards, these are missing: {gaps}; label them with argument `shard`=I/{counts[0]}"
        )


def _read_run(state: Path, shard: Shard | None) -> RunInfo | Problem:
    if is_locked(state):
        return Problem(state, "a run is at work there; check it once that has ended")
    try:
        info = read_record(state / RUN_FILE, "")
        check_shard(info, shard, state)
    except RecordError as error:
        return Problem(error.path, error.reason)
    if info.ended is not None:
        with suppress(OutputError), closing(State(state)) as records:  # what cannot be read is told in its turn
            return replace(info, converting=conversion_begun(info, records))
    return replace(info, converting=())


def _unreadable(path: Path, error: OSError | ValueError) -> Problem:
    if isinstance(error, OSError):
        return Problem(path, reason_of(error))
    return Problem(path, f"{OTHER_VERSION}: {error}")
