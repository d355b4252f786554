"""Join runs of one question: record the images of runs in another folder, with copies of their files.

The files of a folder's own shards are moved. An image is recorded as if it had just been labelled, so a killed command goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import ImageError, InputError, OutputError
from tipsseg.formats import format_name
from tipsseg.images.access import matches
from tipsseg.run.derive import Derived
from tipsseg.run.entry import LINK, ROWS, FileRow
from tipsseg.run.files import StagedFile, digest_of, discard
from tipsseg.run.folder import OutputFolder
from tipsseg.run.read import Run, RunImage
from tipsseg.run.results import ImageResult, Labelled, Unchanged
from tipsseg.run.shards import SHARDS_FOLDER, output_folder
from tipsseg.run.state import STATE_FOLDER
from tipsseg.types import Failed
from tipsseg.util.files import TEMPORARY_PREFIX, output_error, remove_file
from tipsseg.util.text import join_first, shell_word


def join_images(folder: OutputFolder, runs: Iterable[Run]) -> Iterator[ImageResult]:
    """Yield the images of runs, for `folder.record` to record one by one."""
    for run in runs:
        is_own = is_shard_of(run, folder.path)
        for image in run.images():
            try:
                yield _joined(folder, image, is_own=is_own)
            except ImageError as error:
                yield Failed(image.ref(None), error)


def is_shard_of(run: Run, folder: Path) -> bool:
    """Return True for a shard whose output folder is `folder`, however its path is written."""
    return run.shard is not None and is_same(output_folder(run.output), folder)


def is_same(one: Path, other: Path) -> bool:
    """Return True if two paths lead to one folder; False if one of them does not exist."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _joined(folder: OutputFolder, image: RunImage, *, is_own: bool) -> Labelled | Unchanged:
    """Return an image with its files, which are copied under temporary names; or unchanged if its labels in the folder stay.

    Raises ImageError if its labels are missing.
    """
    entry, run, ref = image.entry, image.run, image.ref(None)
    before, rows = folder.state.get(entry.image), folder.state.files(entry.image)
    keeps = before is not None and (
        not (is_own or image.corrected)
        or (RunImage(before, rows, _as_run(folder)).corrected and not folder.info.spec.replace_edited)
    )
    staged, notes, links = list[StagedFile](), list[FileRow](), dict[str, Path]()
    for row in image.rows.values() if not keeps else ():
        path, known = run.files.path(row.place), rows.get(row.place)
        if row.digest == ROWS or (is_own and known is not None and known.pending and not os.path.lexists(path)):
            notes.append(row)  # a killed command moved it
        elif row.digest == LINK:
            if matches(entry.input, ref.path):
                links[format_name(row.name)] = folder.files.path(row.place)
        elif path.is_file():
            staged.append(_stage(folder, run, row, move=is_own))
    labels = [file for file in staged if file.row.name in folder.context.labels]
    if len(labels) + sum(row.name in folder.context.labels for row in notes) < len(folder.context.labels):
        discard(staged)
        if before is None:
            raise ImageError(run.output, f"the labels of {entry.image} are missing", run.hint)
        for row in image.rows.values() if is_own else ():
            path = run.files.path(row.place)
            if not run.files.remove(row) and digest_of(path) == digest_of(folder.files.path(row.place)):
                remove_file(path)  # changed by hand in both places, in the same way
        return Unchanged(ref, before)
    derived = Derived(
        files=tuple(file for file in staged if file not in labels),
        rows={row.name: run.state.rows(row.name, entry.image) for row in notes if row.digest == ROWS},
        notes=tuple(notes),
        links=links,
    )
    return Labelled(ref, entry, tuple(labels), derived)


def _as_run(folder: OutputFolder) -> Run:
    return Run(folder.info, folder.state, folder.info.spec.max_pixels)


def _stage(folder: OutputFolder, run: Run, row: FileRow, *, move: bool) -> StagedFile:
    """Copy a file beside its new place, or take it as it is. One that a person changed keeps the record of what tipsseg wrote."""
    path, place = run.files.path(row.place), folder.files.path(row.place)
    changed = run.files.look(row) != "ours"
    if move:
        folder.files.refuse_outside(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(path, output_error(place, error).message) from error
        return StagedFile(temporary=path, row=row, precious=True, content=digest_of(path) if changed else None)
    status = path.stat()

    def copy(temporary: Path) -> None:
        shutil.copyfile(path, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))

    staged = folder.files.stage(row.name, place, copy, row.shows)
    if changed or staged.row.digest != row.digest:
        return replace(staged, row=replace(row, place=staged.row.place), content=staged.row.digest)
    return staged


def refuse_doubles(folder: OutputFolder, runs: Sequence[Run]) -> None:
    """Raise InputError if images are in two runs with different labels, unless exactly one of the two is corrected.

    Labels of a shard are newer than those of its own output folder.
    """
    others = [_as_run(folder), *runs]
    for number, run in enumerate(runs, 1):
        for other in others[:number]:
            if (
                run.shard
                and other.shard
                and run.shard.count == other.shard.count
                and run.shard.index != other.shard.index
            ):
                continue  # they have no image in common
            newer = is_shard_of(run, other.output) or is_shard_of(other, run.output)
            doubles = [
                image for image in run.images() if image.entry.image in other and _differ(image, other, newer=newer)
            ]
            if not doubles:
                continue
            corrected = [image.entry.image for image in doubles if image.corrected]
            names = join_first(corrected or [image.entry.image for image in doubles], 3)
            hint = "Label a folder that has all images, or omit one of the runs; images are identified by their names."
            if corrected:
                one, two = (shell_word(str(each.output)) for each in (other, run))
                hint = f"To keep the corrections in {one}: tipsseg correct {two} --undo {shell_word(corrected[0])}"
            what = "were corrected in both" if corrected else "have different labels"
            raise InputError(f"{names} in {other.output} and in {run.output}: they {what}", hint)


def _differ(image: RunImage, other: Run, *, newer: bool) -> bool:
    theirs = other.image(image.entry.image)
    if image.corrected != theirs.corrected or (newer and not image.corrected):
        return False
    digests = image.digest(), theirs.digest()
    return "" not in digests and digests[0] != digests[1]


_RECORDS = {"question.json", "run.json", "manifest.jsonl", "errors.jsonl", "classes.json"}


def remove_shards(folder: Path) -> None:
    """Remove the shards of a folder, whose files were moved. Raises OutputError if other files are left."""
    place, doomed = folder / SHARDS_FOLDER, folder / STATE_FOLDER / f"{TEMPORARY_PREFIX}shards"
    for path in sorted(place.rglob("*")):
        is_record = path.name in _RECORDS or path.name.startswith(("state.db", TEMPORARY_PREFIX))
        if path.is_file() and not path.is_symlink() and not is_record:
            raise OutputError(
                path,
                "it could not be joined: tipsseg did not write it, or another file is in its place in the folder",
                "Move one of the two away, and run the same command again.",
            )
    try:
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(doomed, ignore_errors=True)  # of a killed command
            place.rename(doomed)  # partly removed shards would count as missing
            shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise output_error(place, error) from error
