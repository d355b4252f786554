"""`tipsseg check`: verify the output folder of a run, or a feature store, and list the faults. `restore` rebuilds a lost record.

The labels must open, have the size of their picture, and hold ids that the run knows. The record and the files must agree, and the
inputs must be those that were labelled. Edited files, and files that show older labels, are no faults. A feature file must match
its own header and the record of its store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from tipsseg.address import as_address
from tipsseg.errors import FeatureFileError, ImageError, OutputError, RecordError
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
from tipsseg.formats import FORMATS, format_name, is_model_only
from tipsseg.images.access import below, exists, matches
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import ReadingKeywords, with_keywords
from tipsseg.options.run import ReadingOptions
from tipsseg.run.entry import ERRORS_FILE, ROWS
from tipsseg.run.files import digest_of
from tipsseg.run.inputs import check_image_root
from tipsseg.run.labels import GEOTIFF, PNG
from tipsseg.run.lock import is_locked
from tipsseg.run.read import Run, RunImage, open_runs
from tipsseg.run.results import Deriver
from tipsseg.run.shards import SHARDS_FOLDER, missing_shards
from tipsseg.run.state import STATE_FOLDER
from tipsseg.util.files import TEMPORARY_PREFIX, actual_name
from tipsseg.util.progress import Progress, Verbosity, progress_for
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
        taken: Such files that a person changed.
        others: Files in the folders of formats that tipsseg did not write.
    """

    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    gone: int = 0
    files: int = 0
    edited: list[Path] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)
    taken: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


@with_keywords(ReadingKeywords, ReadingOptions)
def check_folder(
    folder: str | Path,
    *,
    images: str | Path | None = None,
    verbose: Verbosity = None,
    **keywords: Unpack[ReadingKeywords],
) -> Iterator[Problem]:
    """Find the faults of an output folder or of a feature store.

        for problem in tipsseg.review.check_folder("labels"):
            print(problem.path, problem.what)

    Args:
        folder: The folder.
        images: The folder that image names are relative to, instead of the recorded addresses.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Yields:
        The problems, sorted by image name.

    Raises:
        UsageError: `images` is not a folder.
        OtherSchemaError: The record is from another version of tipsseg.
    """
    folder, root, reading = (
        Path(folder),
        None if images is None else as_address(images),
        take_options(ReadingOptions, keywords),
    )
    with progress_for(verbose) as progress:
        if is_store(folder):
            yield from check_store(folder, reading.jobs, progress)
        else:
            yield from check_labels(folder, root, reading, progress)


def check_labels(folder: Path, images: Path | None, reading: ReadingOptions, progress: Progress) -> Iterator[Problem]:
    """Find the faults of an output folder (see `check_folder`), and note differences that are not problems."""
    check_image_root(images)
    whole, found = _Report(), 0
    for problem in _problems(folder, images, reading, progress, whole):
        found += 1
        yield problem
    for path in whole.edited:
        progress.note(f"{path}: changed by hand")
    if whole.edited:
        number = pluralize(len(whole.edited), "file")
        progress.note(
            f"{number} changed by hand, as intended: changed masks count as corrections, and changed copies of images stay. "
            "To import other changed files, use tipsseg correct."
        )
    update = f"tipsseg convert {shell_word(str(folder))}"
    for paths, hint in ((whole.stale, f"run {update}"), (whole.taken, f"remove the edited files, and run {update}")):
        if paths:
            names = ", ".join(sorted({path.relative_to(folder).parts[0] for path in paths}))
            progress.note(f"{pluralize(len(paths), 'file')} with older labels, in {names}: {hint}.")
    if whole.others:
        names = join_first([str(path) for path in whole.others], 3)
        progress.note(f"{pluralize(len(whole.others), 'file')} that tipsseg did not write; they stay: {names}.")
    looked = f"{pluralize(whole.images, 'image')}, {pluralize(whole.files, 'file')} checked"
    progress.note(f"{looked}: {pluralize(found, 'problem') if found else 'nothing wrong'}.")


def _problems(
    folder: Path, images: Path | None, reading: ReadingOptions, progress: Progress, whole: _Report
) -> Iterator[Problem]:
    """Yield the faults of an output folder, and add to `whole` what else is found."""
    try:
        with open_runs(folder, ended=False, max_pixels=reading.max_pixels) as runs:
            yield from _check_runs(runs)
            total = sum(map(len, runs))
            progress.begin(f"{pluralize(total, 'image')} in {folder}.", total)
            for run in runs:
                for report in map_in_order(
                    reading.jobs, partial(_check_image, images, Deriver(run.context)), run.images()
                ):
                    whole.images += 1
                    whole.gone += report.gone
                    whole.files += report.files
                    whole.edited += report.edited
                    whole.stale += report.stale
                    whole.taken += report.taken
                    progress.advance()
                    yield from report.problems
                yield from _check_others(run, whole)
    except (RecordError, OutputError) as error:
        yield Problem(error.path, f"{error.reason}. {error.hint}".rstrip())
        for command in error.commands:
            progress.note(f"  {command}")
    except OSError as error:  # any read may fail
        yield unreadable_problem(error, folder)
    if images is not None and whole.gone == whole.images > 0:
        yield Problem(images, "none of the images is in this folder")
    elif whole.gone:
        hint = "" if images is not None else "; pass their folder as argument `images` to compare them"
        progress.note(f"{pluralize(whole.gone, 'input')} not found, so not compared{hint}.")


def _check_runs(runs: tuple[Run, ...]) -> Iterator[Problem]:
    """Yield the faults of runs as a whole."""
    for run in runs:
        run.cache.verify()
        if is_locked(run.output):
            yield Problem(run.output, "a run is in progress; check again when it has finished")
        elif run.info.ended is None or run.cache.broken_off:
            yield Problem(run.output, "the last command was interrupted; run it again")
        elif run.info.digest != runs[0].info.digest:
            yield Problem(run.output, f"its settings differ from {runs[0].output}")
        else:
            for path in run.cache.altered_exports():
                what = "changed since it was written" if os.path.lexists(path) else "missing"
                yield Problem(path, f"{what}; run the original command again, which writes it")
    shards = [run.shard for run in runs if run.shard is not None]
    if shards and (gaps := missing_shards([shard.index for shard in shards], shards[0].count)):
        what = f"of {shards[0].count} shards, these are missing: {gaps}"
        yield Problem(runs[0].output.parent, f"{what}; label them with argument `shard`=I/{shards[0].count}")


def _check_image(images: Path | None, deriver: Deriver, image: RunImage) -> _Report:
    """Check one image. Thread-safe."""
    report = _Report()
    try:
        image.current()
        if image.corrected:
            report.edited.append(image.mask)
        _check_files(image, deriver, report)
        _check_input(images, image, report)
    except ImageError as error:
        report.problems.append(Problem(error.path, error.reason))
    except OSError as error:  # any read may fail
        report.problems.append(unreadable_problem(error, image.run.output))
    return report


def _check_files(image: RunImage, deriver: Deriver, report: _Report) -> None:
    """Compare the files of an image with their records, by content."""
    entry, run = image.entry, image.run
    due = deriver.due(image.ref(None), entry, image.rows)
    report.edited += due.edited
    report.taken += due.stale
    for row in image.rows.values():
        if row.digest == ROWS:
            continue
        path, look = run.files.path(row.place), run.files.look(row)
        report.files += 1
        covered = format_name(row.name) in entry.formats
        if path in due.stale or (look == "gone" and not covered):
            continue
        model_only = is_model_only(row.name)
        outdated = row.is_file and row.shows and (row.shows.split(" ")[0] != entry.version or image.edited)
        if look == "gone":
            report.problems.append(Problem(path, "missing"))
        elif digest_of(path) not in (row.digest, row.pending):
            if model_only:
                what = "changed since tipsseg wrote the file; remove the file, and run the original command again"
                report.problems.append(Problem(path, what))
            elif look == "ours":  # it has the recorded size and time
                report.edited.append(path)
        elif look == "ours" and outdated and (not model_only or run.info.spec.is_raster):
            report.stale.append(path)


def _check_input(images: Path | None, image: RunImage, report: _Report) -> None:
    path = image.path(None) if images is None else below(images, actual_name(image.entry.image))
    if not exists(path):
        report.gone = 1
    elif not matches(image.entry.input, path):
        report.problems.append(Problem(path, "changed since it was labelled"))
    elif not image.run.info.spec.is_raster:
        size, labelled = image.run.reader.size(path), image.entry.numbers.size
        if size != labelled:
            report.problems.append(Problem(path, f"{size_text(size)}, but labelled as {size_text(labelled)}"))


def _check_others(run: Run, whole: _Report) -> Iterator[Problem]:
    """Check the files for the whole run, and name files in folders of formats that belong to no image."""
    due = {*run.cache.formats(), *run.context.formats, "classes"}  # a format that ended may have left files
    for row in run.cache.files().values():
        path, look = run.files.path(row.place), run.files.look(row)
        whole.files += 1
        if look == "gone":
            if row.name in due:
                yield Problem(path, "missing")
        elif look != "ours" or digest_of(path) not in (row.digest, row.pending):
            whole.edited.append(path)
    tops = {form.folder.split("/")[0] for form in FORMATS.values() if form.folder}
    masks = {(run.output / str(FORMATS[name].folder), FORMATS[name].suffix) for name in (PNG, GEOTIFF)}
    paths = (path for top in sorted(tops) for path in _walk(run.output / top))
    for place in run.cache.unknown(map(run.files.place, paths)):
        path = run.files.path(place)
        if not path.name.startswith("."):  # with the temporary files of killed commands, which the next ones remove
            if masks.isdisjoint((parent, path.suffix) for parent in path.parents):
                whole.others.append(path)
            else:  # other commands may take it for a mask
                yield Problem(path, "it belongs to no image in the record")


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


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
    sound = [path for path in files if not path.name.startswith(TEMPORARY_PREFIX)]
    progress.begin(f"{pluralize(len(sound), 'feature file')} in {folder}.", len(sound))
    found = 0
    for path, fault in zip(sound, map_in_order(jobs, partial(_file_fault, folder, record), sound), strict=True):
        progress.advance()
        if fault:
            found += 1
            yield Problem(path, fault)
    progress.end()
    if left := len(files) - len(sound):
        progress.note(
            f"{pluralize(left, 'temporary file')} of runs that are in progress or were killed; a later run removes old ones."
        )
    looked = f"{pluralize(len(sound), 'file')} checked"
    progress.note(f"{looked}: {pluralize(found, 'problem') if found else 'nothing wrong'}.")


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
