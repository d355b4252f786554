"""`tipsseg check`: verify the output folder of a run, or a feature store, and list the faults.

The labels must open, have the size of their picture, and hold ids that the run knows. The record and the files must agree, and the
inputs must be those that were labelled. Edited files, and files that show older labels, are no faults. A feature file must match
its own header and the record of its store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tipsseg.errors import FeatureFileError, ImageError, OutputError, RecordError, Words
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
from tipsseg.folder.cache import CACHE_FOLDER
from tipsseg.folder.entry import ERRORS_FILE, MANIFEST_FILE, ROWS, Entry
from tipsseg.folder.files import TRASH, digest_of
from tipsseg.folder.find import check_image_root
from tipsseg.folder.labels import is_same_picture
from tipsseg.folder.lock import is_locked
from tipsseg.folder.notes import readable_size
from tipsseg.folder.read import Run, RunImage, open_run
from tipsseg.folder.results import Deriver, accept_command
from tipsseg.formats import FORMATS, format_name, is_model_only
from tipsseg.images.access import below, exists
from tipsseg.options.records import ReadingOptions
from tipsseg.say import Progress
from tipsseg.util.files import TEMPORARY_PREFIX, actual_name
from tipsseg.util.json import parse, take
from tipsseg.util.text import Problem, join_first, pluralize, shell_word, size_text, unreadable_problem
from tipsseg.util.threads import map_in_order


@dataclass(slots=True)
class _Report:
    """The findings on an image, or on all images.

    Attributes:
        problems: The faults.
        images: The number of images.
        gone: The number of images that are not found.
        files: The number of files.
        edited: Files that a person changed.
        stale: Files that show older labels.
        others: Files in the folders of formats that tipsseg does not know, or no longer knows.
        trash: The number and the size in bytes of the files in the trash.
    """

    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    gone: int = 0
    files: int = 0
    edited: list[Path] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    trash: tuple[int, int] = (0, 0)


def check_labels(folder: Path, images: Path | None, reading: ReadingOptions, progress: Progress) -> Iterator[Problem]:
    """Find the faults of an output folder (see `check_folder`), and note differences that are not problems."""
    check_image_root(images)
    whole, found = _Report(), 0
    for problem in _problems(folder, images, reading, progress, whole):
        found += 1
        yield problem
    for path in whole.edited:
        progress.note("changed_by_hand", path=path)
    if whole.edited:
        number = pluralize(len(whole.edited), "file")
        progress.note("changed_as_intended", number=number)
    if whole.stale:
        names = ", ".join(sorted({path.relative_to(folder).parts[0] for path in whole.stale}))
        update = f"tipsseg convert {shell_word(str(folder))}"
        progress.note("older_labels", files=pluralize(len(whole.stale), "file"), names=names, update=update)
    if whole.trash[0]:
        left, size = whole.trash
        progress.note(
            "in_trash", files=pluralize(left, "replaced file"), folder=folder / TRASH, size=readable_size(size)
        )
    if whole.others:
        names = join_first([str(path) for path in whole.others], 3)
        progress.note("unknown_files", files=pluralize(len(whole.others), "file"), names=names)
    looked = f"{pluralize(whole.images, 'image')}, {pluralize(whole.files, 'file')} checked"
    progress.note("checked", looked=looked, problems=pluralize(found, "problem") if found else "nothing wrong")


def _problems(
    folder: Path, images: Path | None, reading: ReadingOptions, progress: Progress, whole: _Report
) -> Iterator[Problem]:
    """Yield the faults of an output folder, and add to `whole` what else is found."""
    try:
        with open_run(folder, ended=False, blocks=True, max_pixels=reading.max_pixels) as run:
            yield from _check_run(run)
            progress.begin("checking", len(run), images=pluralize(len(run), "image"), folder=folder)
            check = partial(_check_image, images, Deriver(run.context))
            for report in map_in_order(reading.jobs, check, run.images()):
                whole.images += 1
                whole.gone += report.gone
                whole.files += report.files
                whole.edited += report.edited
                whole.stale += report.stale
                progress.advance()
                yield from report.problems
            yield from _check_others(run, whole)
    except (RecordError, OutputError) as error:
        yield Problem(error.path, error.reason + (". " + error.hint if error.hint else "."))
        for command in error.commands:
            progress.note("command", command=command)
    except OSError as error:  # any read may fail
        yield unreadable_problem(error, folder)
    if images is not None and whole.gone == whole.images > 0:
        yield Problem(images, "none of the images is in this folder")
    elif whole.gone:
        hint: str = "" if images is not None else Words("; pass their folder as {images} to compare them")
        progress.note("inputs_gone", inputs=pluralize(whole.gone, "input"), hint=hint)


def _check_run(run: Run) -> Iterator[Problem]:
    """Yield the faults of a run as a whole."""
    if is_locked(run.output):
        yield Problem(run.output, "a run is in progress; check again when it has finished")
    elif run.info.ended is None:
        yield Problem(run.output, "the last command was interrupted, or parts are missing; run it again")
    else:
        for path in _lost_masks(run):
            yield Problem(path, "missing")
    for error in run.faults.values():
        yield Problem(error.path, error.reason + ". " + error.hint)
    for place, stray in run.strays.items():
        what = f"the mask of {stray.image}, whose labels are elsewhere" if isinstance(stray, Entry) else stray.reason
        yield Problem(
            run.files.path(place), f"{what}. Move it out of this folder, or label the image that it belongs to."
        )


def _lost_masks(run: Run) -> Iterator[Path]:
    """Yield the masks that manifest.jsonl lists, and that are not there."""
    with suppress(OSError, ValueError):  # a person may have changed the list
        for line in (run.output / MANIFEST_FILE).read_bytes().splitlines():
            path = run.files.path(take(take(parse(line), "files", dict), run.context.mask_format, str))
            if not os.path.lexists(path):
                yield path


def _check_image(images: Path | None, deriver: Deriver, image: RunImage) -> _Report:
    """Check one image. Thread-safe."""
    report = _Report()
    try:
        if image.entry.place in image.run.faults:
            return report
        report.files += 1
        if image.run.context.block_mask is None:
            image.labels()
        if image.corrected:
            report.edited.append(image.mask)
        elif image.entry.mask.question != image.run.context.question:
            report.problems.append(
                Problem(image.mask, "labelled with other settings; the original command labels it again")
            )
        _check_files(image, deriver, report)
        _check_input(images, image, report)
    except ImageError as error:
        report.problems.append(Problem(error.path, error.reason))
    except OSError as error:  # any read may fail
        report.problems.append(unreadable_problem(error, image.run.output))
    return report


def _check_files(image: RunImage, deriver: Deriver, report: _Report) -> None:
    """Compare the files of an image with what tipsseg wrote, by content."""
    entry, run = image.entry, image.run
    due = deriver.due(image.ref(None), entry, image.rows)
    report.edited += due.edited
    for row in image.rows.values():
        path = run.files.path(row.place)
        if row.digest == ROWS or path in due.edited:
            continue
        report.files += 1
        look, model_only = run.files.look(row), is_model_only(row.name)
        if look == "gone":
            if format_name(row.name) in run.context.formats:
                report.problems.append(Problem(path, "missing"))
        elif digest_of(path) != row.digest:
            if model_only:
                what = "changed since tipsseg wrote the file; remove the file, and run the original command again"
                report.problems.append(Problem(path, what))
            else:
                report.edited.append(path)
        elif format_name(row.name) in due.write and row.is_file:
            report.stale.append(path)


def _check_input(images: Path | None, image: RunImage, report: _Report) -> None:
    path = image.path(None) if images is None else below(images, actual_name(image.entry.image))
    if not exists(path):
        report.gone = 1
    elif not is_same_picture(image.entry, path, image.run.reader):
        run, what = image.run, "changed since it was labelled"
        if image.corrected and (command := accept_command(run.context, path, image.entry, run.reader)):
            what += f"; if the labels still fit: {command}"
        report.problems.append(Problem(path, what))
    elif image.run.context.block_mask is None:
        size, labelled = image.run.reader.size(path), image.entry.mask.size
        if size != labelled:
            report.problems.append(Problem(path, f"{size_text(size)}, but labelled as {size_text(labelled)}"))


def _check_others(run: Run, whole: _Report) -> Iterator[Problem]:
    """Check the files for the whole run, and name files in folders of formats that belong to no image."""
    due = {*run.context.formats, "classes", "manifest"}  # a format that ended may have left files
    for row in run.cache.files().values():
        path, look = run.files.path(row.place), run.files.look(row)
        whole.files += row.name != "manifest"  # which is of tipsseg alone
        if look == "gone":
            if row.name in due:
                yield Problem(path, "missing")
        elif digest_of(path) != row.digest:
            whole.edited.append(path)
    known = {*run.cache.places(), *run.faults, *run.strays}
    for top in sorted({form.folder.split("/")[0] for form in FORMATS.values() if form.folder}):
        paths = (path for path in _walk(run.output / top) if not path.name.startswith("."))
        whole.others += [path for path in paths if run.files.place(path) not in known]
    if trash := list(_walk(run.output / TRASH)):
        whole.trash = len(trash), sum(path.lstat().st_size for path in trash)


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


#: Names that runs use in a store's folder.
_KNOWN = {STORE_FILE, FILES_FOLDER, ERRORS_FILE, CACHE_FOLDER}


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
    sound = [path for path in files if not path.name.startswith(TEMPORARY_PREFIX)]
    progress.begin("checking_features", len(sound), files=pluralize(len(sound), "feature file"), folder=folder)
    found = 0
    for path, fault in zip(sound, map_in_order(jobs, partial(_file_fault, folder, record), sound), strict=True):
        progress.advance()
        if fault:
            found += 1
            yield Problem(path, fault)
    progress.end()
    if left := len(files) - len(sound):
        progress.note("unfinished_files", files=pluralize(left, "temporary file"))
    looked = f"{pluralize(len(sound), 'file')} checked"
    progress.note("checked", looked=looked, problems=pluralize(found, "problem") if found else "nothing wrong")


def _file_fault(folder: Path, record: StoreRecord, path: Path) -> str:
    """Return the fault of a file in a feature store, or ""."""
    named, own_side = FEATURE_FILE.fullmatch(path.name), record.recipe.short_side
    if named is None or path.parent != folder / FILES_FOLDER / named[1][:2] or named[2] == str(own_side):
        return "not a feature file"  # no run reads it
    try:
        found = read_feature_file(path)
        recipe = replace(record.recipe, short_side=int(named[2] or own_side))
        fault = describe_fault(replace(record, recipe=recipe), named[1], found)
        found.to_float32()
    except FeatureFileError as error:
        return error.reason
    except ValueError as error:
        return str(error)
    return fault
