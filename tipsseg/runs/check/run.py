"""Find the runs in an output folder, and check their run.json and classes.json."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.errors import OutputError, RecordError
from tipsseg.formats.classes_file import CLASSES_FILE, class_names
from tipsseg.options.shard import Shard
from tipsseg.store.lock import finish_command, is_begun, is_locked, is_unfinished
from tipsseg.store.open_run import Run, broken_conversion, check_shard, conversion_begun
from tipsseg.store.run_record import OTHER_VERSION, RUN_FILE, read_record
from tipsseg.store.shards import SHARDS_FOLDER, missing_shards, shards_in, state_folder
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.types import ignore_id
from tipsseg.util.files import describe_error, is_folder, read_regular
from tipsseg.util.json_values import parse, take
from tipsseg.util.problem import Problem, class_faults


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs in an output folder.

    Attributes:
        runs: The runs that can be read; `info.converting` has the formats of an unfinished conversion.
        problems: Their faults.
        whole: True if all runs are present and finished.
    """

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]
    whole: bool


def find_runs(folder: Path, max_pixels: int, stack: ExitStack) -> Runs:
    """Open the run in an output folder, or the runs of its shards; `stack` closes them.

    Raise OtherSchemaError if the records are from another version of tipsseg.
    """
    if not is_folder(folder):
        return Runs((), (Problem(folder, "not a folder" if os.path.lexists(folder) else "no such folder"),), False)
    unfinished = Problem(folder, f"a merge into it is unfinished; finish it: {finish_command(folder)}")
    if is_unfinished(folder):
        return Runs((), (unfinished,), False)
    shards = shards_in(folder)
    problems = [unfinished] if is_begun(folder) else []
    whole: list[Shard | None] = [None]
    if os.path.lexists(folder / RUN_FILE):
        if shards:
            problems.append(Problem(folder / SHARDS_FOLDER, f"shards beside the {RUN_FILE} of a whole run"))
    elif shards:
        whole = [*shards]
        problems += _missing_shards(folder / SHARDS_FOLDER, shards)
    else:
        return Runs((), (Problem(folder, f"not an output folder of tipsseg label: no {RUN_FILE} in it"),), False)
    runs: list[Run] = []
    for shard in whole:
        try:
            runs.append(_open(state_folder(folder, shard), shard, max_pixels, stack))
        except (RecordError, OutputError) as error:
            problems.append(Problem(error.path, error.reason))
        else:
            problems += _faults(runs[-1].info, runs[0].info)
    return Runs(tuple(runs), tuple(problems), not problems)


def _open(state: Path, shard: Shard | None, max_pixels: int, stack: ExitStack) -> Run:
    """Open a run in any state. Raises RecordError if a run is in progress or its records are invalid."""
    if is_locked(state):
        raise RecordError(state, "a run is in progress; check again when it has finished")
    info = read_record(state / RUN_FILE, "")
    check_shard(info, shard, state)
    records = stack.enter_context(closing(State(state)))
    info = replace(info, converting=() if info.ended is None else conversion_begun(info, records))
    return Run(info, info.spec.vocabulary.classes, records, max_pixels)


def _faults(run: RunInfo, first: RunInfo) -> Iterator[Problem]:
    path = run.spec.state / RUN_FILE
    if run.ended is None:
        yield Problem(path, "the run was interrupted; run the same command again")
    elif run.converting:
        error = broken_conversion(run.spec.output, run.converting)
        yield Problem(path, f"{error.reason}. {error.hint}")
    elif run.digest != first.digest:
        yield Problem(path, f"its settings differ from {first.spec.state / RUN_FILE}")


def check_classes(folder: Path, run: RunInfo) -> Iterator[Problem]:
    """Compare classes.json with the meaning of the ids in the run."""
    path = folder / CLASSES_FILE
    try:
        record = parse(read_regular(path))
        classes = class_names(record)
        ignore = take(record, "ignore", int)
    except OSError as error:
        yield Problem(path, describe_error(error))
        return
    except ValueError as error:
        yield Problem(path, f"{OTHER_VERSION}: {error}")
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
            place,
            f"shards of {' and '.join(map(str, counts))} parts, but all shards of a run have the same number of parts",
        )
    elif gaps := missing_shards([shard.index for shard in shards], counts[0]):
        yield Problem(
            place, f"of {counts[0]} shards, these are missing: {gaps}; label them with argument `shard`=I/{counts[0]}"
        )
