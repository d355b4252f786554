"""Refuse to label into a folder if its labels, ids or files conflict with those of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from pathlib import Path, PurePosixPath

from tipsseg.errors import OtherRunError, OutputError, RecordError
from tipsseg.formats import FORMATS, mask_formats
from tipsseg.store import spec as specs
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.lock import finish_command, is_begun, is_unfinished
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.ownership import MOVE
from tipsseg.store.results import Failed, edited_formats
from tipsseg.store.resuming.differences import difference_texts, kept_features, of_same_phrases, other_options
from tipsseg.store.resuming.resume import ANOTHER_FOLDER, ResumeState, follows
from tipsseg.store.run_record import RUN_FILE, find_run, read_record, refuse_other_record
from tipsseg.store.shards import shards_in, state_folders
from tipsseg.store.spec import RunInfo, RunSpec
from tipsseg.store.state import State
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef, ignore_id
from tipsseg.util.printable import join_first, shell_word
from tipsseg.util.record_paths import actual_path

_START_OVER = f"{ANOTHER_FOLDER}, or start over in this one with argument `overwrite`."
_LABEL_ALL = f"{ANOTHER_FOLDER}, or label all images of this folder in one run."


def open_resume(info: RunInfo, context: RunContext, state: State) -> ResumeState:
    """Read the state left by an earlier run.

    Args:
        info: The run that resumes.
        context: The settings and folders for its format writers.
        state: The database of the folder.

    Raises:
        OutputError: Records are unreadable or were written by another program, or one of the two runs is whole and the other is a
            shard.
    """
    _refuse_neighbours(info.spec)
    return ResumeState(info, _read_earlier_run(context.state, state), context, state)


def _refuse_neighbours(spec: RunSpec) -> None:
    """Raise OutputError if the folder has an unfinished merge, or would mix a whole run with shards."""
    output, shard = spec.output, spec.shard
    if is_unfinished(output):
        hint = f"{ANOTHER_FOLDER}, or finish it first: {finish_command(output)}"
        raise OutputError(output, "a merge into it is unfinished", hint)
    others = [other for other in shards_in(output) if shard is None or other.count != shard.count]
    if others:
        hint = f"{ANOTHER_FOLDER}, or join its shards: tipsseg merge {output} -o {output}"
        raise OutputError(output, f"it holds {others[0].folder}, a shard of another run", hint)
    if shard is not None and (output / MANIFEST_FILE).exists() and not is_begun(output):
        hint = f"{ANOTHER_FOLDER}, and join both later with tipsseg merge."
        raise OutputError(output, "it holds a whole run, but this run is a shard", hint)


def _read_earlier_run(folder: Path, state: State) -> RunInfo | None:
    """Read the run.json of a state folder; return None if it is missing.

    Raises OutputError if another program or version wrote it, or if there are other records without a run.json.
    """
    refuse_other_record(folder)
    if not os.path.lexists(folder / RUN_FILE):
        for name in (MANIFEST_FILE, ERRORS_FILE):
            if os.path.lexists(folder / name) and not state.broken_off:
                raise OutputError(folder / name, f"it exists without a {RUN_FILE}, so its run is unknown", MOVE)
        return None
    try:
        return read_record(folder / RUN_FILE, "")
    except RecordError as error:
        raise OutputError(folder, f"its {RUN_FILE} is {error.reason}", f"{ANOTHER_FOLDER}.") from error


def refuse_other_ids(resume: ResumeState, refs: Iterable[ImageRef | Failed]) -> None:
    """Raise OtherRunError if the folder, or another shard, has labels from another model or vocabulary.

    Colours, supercategories and minimum confidences do not change the meaning of ids, but must be the same in all shards. `refs`
    are the images of this run that are known in advance.
    """
    output, before = resume.context.output, resume.before
    pairs = [
        (shard, resume.info)
        for state in state_folders(output)
        if state != resume.context.state and (shard := find_run(state)) is not None
    ]
    if before is not None and (len(resume.state) or resume.lost):
        pairs.insert(0, (of_same_phrases(before), of_same_phrases(resume.info)))
    for pair in pairs:
        if other := difference_texts(*pair):
            names = {ref.name for ref in refs}
            old, new = (list(info.names.values()) for info in pair)
            gained = (
                old[len(new) :] if old[: len(new)] == new else []
            )  # for example from `tipsseg correct --add-classes`
            covered = not gained and all(entry.image in names for entry in resume.state.entries())
            hint = _START_OVER if covered else f"{ANOTHER_FOLDER}."
            reason = f"it holds labels of another run: {'; '.join(other)}"
            if gained:
                reason += f". To resume that run, name {join_first(gained, 5)} too"
            raise OtherRunError(output, reason, hint, covered=covered)


def refuse_other_classes(resume: ResumeState) -> None:
    """Raise OutputError if a corrected mask would be kept although its ids would mean other classes."""
    if resume.before is None:
        return
    context = resume.context
    old, new = resume.before.names, resume.info.names
    lost = next((label_id for label_id in old if new.get(label_id) != old[label_id]), None)
    if lost is None and ignore_id(len(old)) == ignore_id(len(new)):
        return
    masks = set(mask_formats())
    for entry in resume.state.entries():
        ref = ImageRef(Path(entry.path), PurePosixPath(entry.image))
        if masks & set(edited_formats(entry, ref, context)):
            now = "" if lost is None else f": {lost} was {old[lost]}, and would be {new.get(lost, 'unused')}"
            raise OutputError(
                context.output,
                f"the mask of {entry.image} was corrected, and its ids would mean other classes{now}",
                f"{ANOTHER_FOLDER}, or discard the corrections with argument `overwrite` and argument `replace_edited`. "
                "Classes may be added after the existing ones.",
            )


def refuse_in_the_way(resume: ResumeState, refs: Iterable[ImageRef | Failed]) -> None:
    """Raise OutputError if the folder has labels of other images under the names of these, or unrecorded files with their names.

    Files of an earlier run with incomplete records are exempt: their owner is known only when an image is labelled.
    """
    images = (
        ref for ref in refs if isinstance(ref, ImageRef) and not (resume.kept and resume.files_of(ref) & resume.kept)
    )
    conflicts = [
        (ref, conflict) for ref in images if (conflict := resume.conflict(ref, resume.state.path_and_formats(ref.name)))
    ]
    if conflicts and resume.info.spec.overwrite:  # files of other images with the same stem are removed anyway
        ours = {
            actual_path(resume.context.output, file)
            for entry in resume.state.entries()
            for file in entry.files.values()
        }
        conflicts = [(ref, conflict) for ref, conflict in conflicts if not resume.files_of(ref) <= ours]
    if conflicts:
        ref, (reason, hint) = conflicts[0]
        more = f" (and {len(conflicts) - 1} more such images)" if len(conflicts) > 1 else ""
        raise OutputError(resume.context.output, f"{ref.address}: {reason}{more}", hint)


def refuse_mixture(resume: ResumeState, covered: Container[str]) -> None:
    """Raise OtherRunError if labels made with other options would be kept; `covered` has the names of this run's images."""
    others = [image for image in resume.state.others(resume.digest) if image not in covered]
    if not others:
        return
    before, spec = resume.before, resume.info.spec
    entry = resume.state.get(others[0])
    run = before if entry is not None and before is not None and before.digest == entry.digest else None
    alone = run is not None and other_options(run, resume.info)[0] == [kept_features(run.spec)]
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    command = "" if run is None or run.noted is None else f" ({run.noted.command})"
    reasons = [
        f"it holds the labels of {others[0]}{more}, made with other options{command}, and this run would not label them again",
        *([] if run is None else _changed_options(run, resume.info)),
    ]
    features = run.spec.features if run is not None and alone and spec.features is None else None
    raise OtherRunError(resume.context.output, "; ".join(reasons), _LABEL_ALL, features=features)


def refuse_convertible(resume: ResumeState, refs: Iterable[ImageRef | Failed]) -> None:
    """Raise OutputError if an image lacks only formats that `tipsseg convert` can write from its labels.

    Call this if the folder `lacks_formats`. `refs` are the images of this run.
    """
    state, output = resume.state, resume.context.output
    lacking = {ref.name: resume.new_formats(ref.name) for ref in refs if ref.name in state}
    formats = {name for names in lacking.values() for name in names}
    for entry in state.entries() if formats else ():
        formats = {name for name in formats if name in entry.formats or follows(name, entry, entry.formats)}
    images = (ref for ref in refs if isinstance(ref, ImageRef) and lacking.get(ref.name))
    if any(formats.issuperset(lacking[ref.name]) and resume.is_convertible(ref) for ref in images):
        begun = () if resume.before is None else resume.before.converting
        names = ",".join(name for name in FORMATS if name in formats.union(begun))
        command = f"tipsseg convert {shell_word(str(output))} --format {names}"
        raise OutputError(
            output,
            f"its images are already labelled and lack only {names}",
            f"Write the missing formats without the model: {command}",
        )


def _changed_options(run: RunInfo, info: RunInfo) -> list[str]:
    """Describe the options that differ from those of an earlier run."""
    if run.noted is not None and run.noted.labels_version != specs.LABELS_VERSION:
        return ["they were made by a version of tipsseg that labels differently"]
    theirs, ours = other_options(run, info)
    found = [f"they have {', '.join(theirs)}, but this run has {', '.join(ours)}"] if theirs else []
    if difference_texts(run, info):
        found.append("colours, supercategories or minimum confidences of classes differ")
    return found
