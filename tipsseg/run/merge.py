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
from tipsseg.images.sources.access import matches
from tipsseg.run.derive import Derived
from tipsseg.run.entry import LINK, ROWS, FileRow
from tipsseg.run.files import StagedFile
from tipsseg.run.folder import OutputFolder
from tipsseg.run.read import Run, RunImage
from tipsseg.run.results import Failed, ImageResult, Labelled, Unchanged
from tipsseg.run.shards import SHARDS_FOLDER
from tipsseg.run.state import STATE_FOLDER
from tipsseg.util.files import TEMPORARY_PREFIX, output_error
from tipsseg.util.printable import join_first


def join_images(folder: OutputFolder, runs: Iterable[Run]) -> Iterator[ImageResult]:
    """Yield the images of runs, for `folder.record` to record one by one."""
    for run in runs:
        for image in run.images():
            try:
                yield _joined(folder, image)
            except ImageError as error:
                yield Failed(image.ref(None), error)


def _joined(folder: OutputFolder, image: RunImage) -> Labelled | Unchanged:
    """Return an image with its files, which are copied under temporary names; or unchanged if its labels in the folder stay.

    Raises ImageError if its labels are missing.
    """
    entry, run, ref = image.entry, image.run, image.ref(None)
    before, rows = folder.state.get(entry.image), folder.state.files(entry.image)
    is_own = run.output.is_relative_to(folder.path)
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
        elif os.path.lexists(path):
            staged.append(_stage(folder, row, path, move=is_own, by_hand=image.edited))
    labels = [file for file in staged if file.row.name in folder.context.labels]
    if len(labels) + sum(row.name in folder.context.labels for row in notes) < len(folder.context.labels):
        if before is None:
            raise ImageError(run.output, f"the labels of {entry.image} are missing", run.hint)
        for row in image.rows.values() if is_own else ():
            run.files.remove(row)
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


def _stage(folder: OutputFolder, row: FileRow, path: Path, *, move: bool, by_hand: bool) -> StagedFile:
    """Copy a file beside its new place, or take it as it is. One that a person changed keeps the record of what tipsseg wrote."""
    place = folder.files.path(row.place)
    if move:
        place.parent.mkdir(parents=True, exist_ok=True)
        return StagedFile(temporary=path, row=row, precious=True)
    status = path.stat()

    def copy(temporary: Path) -> None:
        shutil.copyfile(path, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))

    staged = folder.files.stage(row.name, place, copy, row.shows)
    changed = by_hand or staged.row.digest != row.digest
    return replace(staged, row=replace(row, place=staged.row.place)) if changed else staged


def refuse_doubles(folder: OutputFolder, runs: Sequence[Run]) -> None:
    """Raise InputError if images are in two runs with different labels, unless exactly one of the two is corrected."""
    others = [_as_run(folder), *runs]
    for number, run in enumerate(runs, 1):
        for other in others[:number]:
            if run.output.is_relative_to(other.output) or _are_apart(run, other):
                continue
            doubles = [
                image.entry.image for image in run.images() if image.entry.image in other and _differ(image, other)
            ]
            if doubles:
                raise InputError(
                    f"{join_first(doubles, 3)} in {other.output} and in {run.output}: the labels differ",
                    "Images are identified by their paths below the labelled folder. If both were corrected, give one of them back "
                    "to the model with tipsseg correct OUT --undo IMAGE; else label a folder that has all images.",
                )


def _are_apart(one: Run, other: Run) -> bool:
    """Return True for two shards that have no image in common."""
    return (
        one.shard is not None
        and other.shard is not None
        and one.shard.count == other.shard.count
        and one.shard.index != other.shard.index
    )


def _differ(image: RunImage, other: Run) -> bool:
    theirs = other.image(image.entry.image)
    return (
        image.corrected == theirs.corrected
        and "" not in (mine := (image.digest(), theirs.digest()))
        and mine[0] != mine[1]
    )


_RECORDS = {"run.json", "manifest.jsonl", "errors.jsonl", "classes.json"}


def remove_shards(folder: Path) -> None:
    """Remove the shards of a folder, whose files were moved. Raises OutputError if other files are left."""
    place, doomed = folder / SHARDS_FOLDER, folder / STATE_FOLDER / f"{TEMPORARY_PREFIX}shards"
    for path in sorted(place.rglob("*")):
        is_record = path.name in _RECORDS or path.name.startswith(("state.db", TEMPORARY_PREFIX))
        if path.is_file() and not path.is_symlink() and not is_record:
            raise OutputError(
                path, "it does not belong to the runs to join", "Move it away, and run the same command again."
            )
    try:
        if place.is_dir():
            shutil.rmtree(doomed, ignore_errors=True)  # of a killed command
            place.rename(doomed)  # partly removed shards would count as missing
            shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise output_error(place, error) from error
