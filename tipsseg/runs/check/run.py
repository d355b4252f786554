"""Rules of run.json and classes.json: which runs an output folder holds, whether they ended, and what their ids mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsseg.formats.problem import Problem, class_faults
from tipsseg.options import FileOptions
from tipsseg.store.classes_file import CLASSES_FILE, class_names
from tipsseg.store.lock import finish_command, is_begun, is_locked, is_unfinished
from tipsseg.store.reader import broken_conversion, conversion_begun
from tipsseg.store.run_record import RUN_FILE, read_run
from tipsseg.store.shards import SHARDS_FOLDER, Shard, missing_shards, shards_in, state_folder
from tipsseg.types import ignore_id
from tipsseg.util.files import is_folder, read_regular, reason_of
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.json_values import parse, short, take
from tipsseg.util.record_paths import actual_path


@dataclass(frozen=True, slots=True)
class Run:
    """What the run.json in a state folder says.

    state       that folder
    shard       None for a whole run
    names       of the classes by id, 1..N
    files       how labels became files
    image_root  the folder that the images' names begin at; None where that is not one, as after a merge
    ended       whether the run came to its end
    converting  formats that a conversion was to write which did not come to its end
    labelled    images that the folder had at its end; 0 before that
    failed      images that it could not label; 0 before its end
    written     files that stand for the whole run, as it wrote them, by their paths relative to the output folder
    """

    state: Path
    shard: Shard | None
    digest: str
    names: Mapping[int, str]
    formats: tuple[str, ...]
    files: FileOptions
    image_root: Path | None
    ended: bool
    converting: tuple[str, ...]
    labelled: int
    failed: int
    written: Mapping[str, Fingerprint]

    @property
    def path(self) -> Path:
        """Its run.json."""
        return self.state / RUN_FILE


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs in an output folder, and what is wrong with their run.json; `whole` tells that all are there and have ended."""

    runs: tuple[Run, ...]
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
    runs = tuple(run for run in found if isinstance(run, Run))
    for each in found:
        if isinstance(each, Problem):
            problems.append(each)
        elif not each.ended:
            problems.append(Problem(each.path, "the run was broken off; run the same command again"))
        elif each.converting:
            error = broken_conversion(folder, each.converting)
            problems.append(Problem(each.path, f"{error.message.removeprefix(f'{folder}: ')}. {error.hint}"))
        elif each.digest != runs[0].digest:
            problems.append(Problem(each.path, f"labelled with other settings than {runs[0].path}"))
    return Runs(runs, tuple(problems), not problems)


def check_classes(folder: Path, run: Run) -> Iterator[Problem]:
    """Whether classes.json gives the ids the meaning that they had in the run."""
    path = folder / CLASSES_FILE
    try:
        record = parse(read_regular(path))
        classes = class_names(record)
        ignore = take(record, "ignore", int)
    except (OSError, ValueError) as error:
        yield _unreadable(path, error)
        return
    for what in class_faults(classes, run.names):
        yield Problem(path, what)
    if ignore != ignore_id(len(run.names)):
        yield Problem(path, f"`ignore` is {ignore}, not {ignore_id(len(run.names))}")


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


def _read_run(state: Path, shard: Shard | None) -> Run | Problem:
    if is_locked(state):
        return Problem(state, "a run is at work there; check it once that has ended")
    path = state / RUN_FILE
    try:
        info = read_run(state)
        noted = info.spec.shard
        if noted != shard:
            raise ValueError(f"the shard is {'null' if noted is None else short(str(noted))}")
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    ended = info.ended is not None
    return Run(
        state,
        shard,
        info.digest,
        info.names,
        info.spec.formats,
        info.spec.files,
        None if info.image_root is None else actual_path(Path(), info.image_root),
        ended,
        conversion_begun(info) if ended else (),
        info.images if ended else 0,
        info.counts.failed,
        info.files,
    )


def _unreadable(path: Path, error: OSError | ValueError) -> Problem:
    if isinstance(error, OSError):
        return Problem(path, reason_of(error))
    return Problem(path, f"not as this version of tipsseg writes it: {error}")
