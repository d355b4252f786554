"""`tipsseg merge`: join runs of one question, or the shards of a run, into one output folder.

A merge may be killed at any point; the same command goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, UsageError
from tipsseg.formats import is_model_only
from tipsseg.run.folder import OutputFolder, locked_state
from tipsseg.run.merge import is_same, is_shard_of, join_images, refuse_doubles, remove_shards
from tipsseg.run.names import refuse_shared
from tipsseg.run.question import differences_text
from tipsseg.run.read import Run, has_run, open_folders
from tipsseg.run.record import stored_run
from tipsseg.run.settle import settle
from tipsseg.run.shards import missing_shards, state_folders
from tipsseg.run.spec import Counts, RunInfo, check_folder
from tipsseg.runs.common.notes import note_settled
from tipsseg.runs.common.progress import Progress
from tipsseg.types import Failed
from tipsseg.util.files import is_folder
from tipsseg.util.text import pluralize


def merge_folders(folders: Sequence[Path], target: Path, progress: Progress) -> int:
    """Join the runs in output folders into `target`: a new folder, or one of `folders`.

    Args:
        folders: Output folders of `tipsseg label`, each with a run, shards, or both.
        target: The folder of the joined run.
        progress: Prints progress, notes and results.

    Returns:
        The number of images that could not be joined, and of files that are in the way.

    Raises:
        UsageError: A folder is given twice.
        InputError: The runs cannot be joined.
        OutputError: The target cannot be written.
    """
    for number, folder in enumerate(folders):
        if any(is_same(folder, other) for other in folders[:number]):
            raise UsageError(f"{folder} is given twice", "Pass each output folder once.")
        if not is_same(folder, target) and target.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{target} is in {folder}, which is to be joined", "Choose a folder outside.")
    check_folder(target)
    try:
        return _merge(folders, target, progress)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command to resume")
        raise


def _merge(folders: Sequence[Path], target: Path, progress: Progress) -> int:
    with locked_state(target) as state, ExitStack() as stack:
        runs = stack.enter_context(open_folders([each for folder in folders for each in _runs_in(folder, target)]))
        before = stored_run(state)
        if not runs and before is not None:
            progress.note(f"{target} holds no shards: there is nothing to join.")
            return 0
        if not all(name in state for run in runs for name in run.state.names()):
            _refuse_missing(runs)
        joined = OutputFolder(_joined_info(runs, before, target), state, before)
        refuse_doubles(joined, runs)
        names = {name for run in runs for name in run.state.names()}
        refuse_shared(
            target, joined.info.spec.files.names, ("png", *joined.info.spec.formats), sorted({*names, *state.names()})
        )
        what = (
            f"{pluralize(len(names), 'image')} of {pluralize(len(runs), 'shard' if runs and runs[0].shard else 'run')}"
        )
        progress.begin(f"Joining {what}.", sum(map(len, runs)))
        joined.begin(joined.info)
        failed = 0
        for found in join_images(joined, runs):
            result = joined.record(found)
            if isinstance(result, Failed):
                failed += 1
                progress.error(result.error)
            progress.advance()
        for run in runs:
            for failure in run.state.failures():
                if failure.image not in state or is_shard_of(run, target):
                    state.fail(failure)
        # An image is in every format that some run has for all its images.
        infos = [*([before] if before else []), *(run.info for run in runs)]
        uneven = {name for one in infos for other in infos for name in {*one.spec.formats} - {*other.spec.formats}}
        state.cover(sorted(name for name in uneven if not is_model_only(name)))  # each image is then in all formats
        settled = settle(joined, joined.info.spec.jobs)
        joined.finish(joined.info.counts)
        if not failed:
            remove_shards(target)
        progress.end()
        progress.results(joined.run_paths)
        for error in settled.failed:
            progress.error(error)
        note_settled(joined, settled, progress)
        if failures := len(state.failures()):
            progress.note(f"{pluralize(failures, 'image')} failed, see {target / 'errors.jsonl'}")
        progress.note(f"Joined {what} into {target}" + (f", but {failed} not." if failed else ""))
        return failed + len(settled.failed) + len(joined.unwritten)


def _runs_in(folder: Path, target: Path) -> Iterator[Path]:
    """Yield the folders of the run and of the shards in an output folder; the run of the target is there already."""
    shards = state_folders(folder) if is_folder(folder) else []
    yield from shards  # before the run that they belong to: their labels are newer
    if not is_same(folder, target) and (not shards or has_run(folder)):
        yield folder


def _refuse_missing(runs: Sequence[Run]) -> None:
    """Raise InputError if runs lack a shard of a run."""
    shards = [run.shard for run in runs if run.shard is not None]
    for count in {shard.count for shard in shards}:
        if gaps := missing_shards([shard.index for shard in shards if shard.count == count], count):
            raise InputError(
                f"of {count} shards, these are missing: {gaps}",
                f"Label them by the command of the others, with argument `shard`=I/{count}; or pass their folder too.",
            )


def _joined_info(runs: Sequence[Run], before: RunInfo | None, target: Path) -> RunInfo:
    """Return the joined run: the settings of the first one, and the sums of all. Raises InputError if their questions differ."""
    infos = [*([before] if before else []), *(run.info for run in runs)]
    if not infos:
        raise InputError(f"{target}: nothing to join", "Pass output folders of tipsseg label.")
    first = infos[0]
    for info in infos[1:]:
        if text := differences_text(first, info, " / "):
            raise InputError(
                f"{first.spec.folder} and {info.spec.folder} were labelled with different settings: {text}",
                "Join only runs of one question: otherwise ids or files would conflict.",
            )
    names = ("labelled", "unchanged", "failed", "edited")
    return replace(
        first,
        spec=first.spec.changed(
            output=target,
            shard=None,
            formats=tuple(dict.fromkeys(name for info in infos for name in info.spec.formats)),
        ),
        image_root=first.image_root if len({info.image_root for info in infos}) == 1 else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        counts=Counts(*(sum(getattr(info.counts, name) for info in infos) for name in names)),
    )
