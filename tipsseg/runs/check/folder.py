"""`tipsseg check`: reads the output folder of a run back and says what is not as a run leaves it.

run       run.json, classes.json, shards
manifest  manifest.jsonl
image     one image: its entry, its per-image files, its input
files     what else is there

What a format wrote is held against the digests in the records. Index masks, and files with a `Format.check_run_file`, have rules of
their own beyond that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tipsseg.formats import FORMATS, of_the_model
from tipsseg.formats.base import ImageCheck, Rows, RunFileCheck
from tipsseg.formats.problem import Problem, unreadable, what_is_wrong
from tipsseg.options import MAX_PIXELS
from tipsseg.runs.check.image import Place, Report, check_image
from tipsseg.runs.check.manifest import Images, Owners, find_orphans, find_temporaries
from tipsseg.runs.check.run import check_classes, find_runs
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.progress import Progress
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.run_record import RUN_FILE, run_context
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import LabelledImage
from tipsseg.store.writing import rows_file, run_files
from tipsseg.util.files import is_file
from tipsseg.util.printable import counted, shell_word
from tipsseg.util.record_paths import actual_path
from tipsseg.util.threads import in_order


@dataclass(slots=True)
class _Tally:
    """What was looked at so far: images, and see Report."""

    images: int = 0
    files: int = 0
    other: int = 0
    gone: int = 0
    edited: int = 0
    behind: int = 0


def check_folder(
    folder: Path, images: Path | None, jobs: int, progress: Progress, max_pixels: int = MAX_PIXELS
) -> Iterator[Problem]:
    """Find all that is wrong with an output folder. Memory grows by little more than a name per image.

    Args:
        folder: The output folder.
        images: The folder that the images' names begin at, in place of the one that the run noted.
        jobs: Threads that read images.
        progress: Is told of what is worth knowing and not wrong.
        max_pixels: Larger images are refused.

    Yields:
        The problems, in the order of the images' names.

    Raises:
        UsageError: Where `images` is no folder.
    """
    check_image_root(images)
    tally = _Tally()
    found = 0
    try:
        for problem in _check(folder, images, jobs, progress, max_pixels, tally):
            found += 1
            yield problem
    except OSError as error:  # what is read may fail at any moment
        found += 1
        yield unreadable(error, folder)
    if tally.other:
        progress.note(f"{counted(tally.other, 'image')} labelled with other settings than {RUN_FILE} says.")
    if images is not None and tally.gone == tally.images > 0:
        found += 1
        yield Problem(images, "none of the images is in this folder")
    elif tally.gone:
        hint = "" if images is not None else "; give their folder with argument `images` to compare them"
        progress.note(f"{counted(tally.gone, 'input')} not found, so not compared{hint}.")
    if tally.edited:
        progress.note(
            f"{counted(tally.edited, 'file')} changed by hand, which is no problem; "
            f"tipsseg convert {shell_word(str(folder))} --format FORMAT takes changed masks into other formats."
        )
    if tally.behind:
        progress.note(
            f"Other formats of {counted(tally.behind, 'corrected image')} have the labels of before the correction."
        )
    looked = f"{counted(tally.images, 'image')}, {counted(tally.files, 'file')} checked"
    progress.note(f"{looked}: {counted(found, 'problem') if found else 'nothing wrong'}.")


def _check(
    folder: Path, images: Path | None, jobs: int, progress: Progress, max_pixels: int, tally: _Tally
) -> Iterator[Problem]:
    found = find_runs(folder)
    yield from found.problems
    if not found.runs:
        return
    yield from check_classes(folder, found.runs[0])
    _note_runs(folder, found.runs, found.whole, progress)
    with ExitStack() as stack:
        runs = [Images(run, max_pixels) for run in found.runs]
        for each in runs:
            stack.callback(each.close)
            yield from each.read()
        owners = Owners()
        yield from owners.take(runs)
        total = sum(len(each.formats) for each in runs)
        progress.begin(f"{counted(total, 'image')} in {folder}.", total)
        for each in runs:
            checks = _RunFiles(folder, each)
            yield from checks.check(progress)
            _note_gaps(each, progress)
            noted = each.run.image_root
            root = images or (None if noted is None else actual_path(Path(), noted))
            place = Place(folder, each.run, root, max_pixels, checks.rows())
            for report in in_order(jobs, partial(_check_pair, place), checks.pairs()):
                tally.images += 1
                tally.files += report.files
                tally.other += report.other
                tally.gone += report.gone
                for path in report.edited:
                    progress.note(f"{path}: changed by hand")
                tally.edited += len(report.edited)
                tally.behind += report.behind
                progress.advance()
                yield from report.problems
        if found.whole and all(each.sound for each in runs):
            yield from find_orphans(folder, owners)
            yield from find_temporaries(folder)


class _RunFiles:
    """The files that formats have for one run: held against their digests, or read by rules of their own."""

    def __init__(self, folder: Path, images: Images) -> None:
        self._folder = folder
        self._images = images
        self._ruled: tuple[Path, RunFileCheck, Mapping[str, object]] | None = None

    def check(self, progress: Progress) -> Iterator[Problem]:
        """What is wrong with the files; sound files that were changed by hand become notes of `progress`."""
        run = self._images.run
        checked: set[str] = set()
        for name, form in FORMATS.items():
            holders = {image: None for image, formats in self._images.formats.items() if name in formats}
            # Before the end of a run they are not written. Images of an earlier run may have been in more formats.
            if run.ended is None or name in run.converting or not (holders or name in run.spec.formats):
                continue
            for file in run_files(name, run_context(run)):
                if not (holders or run.images or os.path.lexists(file.path)):  # a run without an image writes none
                    continue
                rules = form.check_run_file(file.path, self._images.names, holders)
                if rules is not None:
                    yield from self._check_by_rules(file.path, rules, holders)
                else:
                    place = file.path.relative_to(self._folder).as_posix()
                    checked.add(place)
                    yield from self._check_digest(file.path, place)
        for place, written in run.files.items():
            path = self._folder / place
            if place not in checked and is_file(path) and not written.same_bytes(path):
                progress.note(f"{path}: changed by hand")

    def rows(self) -> dict[str, tuple[Path, dict[str, Rows]]]:
        """Return the rows of corrected images, with their file, in each format that has rows and no rules of its own."""
        found = {}
        context = run_context(self._images.run)
        for name, form in FORMATS.items():
            file = rows_file(name, context)
            if (
                not self._images.corrected
                or file is None
                or form.needs_image
                or (self._ruled and self._ruled[0] == file.path)
            ):
                continue
            holders = [image for image, formats in self._images.formats.items() if name in formats]
            with suppress(OSError, ValueError):  # its digest is held against run.json
                rows = {image: of_it for image, of_it in file.read(holders) if image in self._images.corrected}
                found[name] = file.path, rows
        return found

    def pairs(self) -> Iterator[tuple[LabelledImage, tuple[Path, ImageCheck] | None]]:
        """All images, each with the file that has rules of its own, and those for the image."""
        seen: set[str] = set()
        if self._ruled is not None:
            path, rules, holders = self._ruled
            for name, check in rules.images():
                if name in holders and name not in seen:
                    seen.add(name)
                    yield self._images.get(name), (path, check)
        for name in self._images.formats:
            if name not in seen:
                yield self._images.get(name), None

    def _check_by_rules(self, path: Path, rules: RunFileCheck, holders: Mapping[str, object]) -> Iterator[Problem]:
        try:
            for what in rules.whole():
                yield Problem(path, what)
            self._ruled = path, rules, holders
        except (OSError, ValueError) as error:
            yield Problem(path, what_is_wrong(error))

    def _check_digest(self, path: Path, place: str) -> Iterator[Problem]:
        written = self._images.run.files.get(place)
        if not is_file(path):
            yield Problem(path, "missing")
        elif written is None:
            yield Problem(path, f"{RUN_FILE} does not have it")
        elif not written.same_bytes(path):
            yield Problem(path, "changed since it was written")


def _note_gaps(images: Images, progress: Progress) -> None:
    """Say which formats do not hold all images; that may be meant so."""
    number, run = len(images.formats), images.run
    if run.ended is None or run.converting:
        return
    models = of_the_model()
    for name in FORMATS:
        held = sum(name in formats for formats in images.formats.values())
        if (held or name in run.spec.formats) and held < number:
            progress.note(
                f"In the format {name} are {held} of {counted(number, 'image')}; "
                + ("only the model can write the others." if name in models else "tipsseg convert writes the others.")
            )


def _note_runs(folder: Path, runs: Sequence[RunInfo], whole: bool, progress: Progress) -> None:
    for run in runs:
        if failed := run.counts.failed:
            progress.note(f"{counted(failed, 'image')} failed, see {run.spec.state / ERRORS_FILE}")
    if whole and runs[0].spec.shard is not None:
        place = shell_word(str(folder))
        progress.note(f"All {counted(len(runs), 'shard')} ended; join them: tipsseg merge {place} -o {place}")


def _check_pair(place: Place, pair: tuple[LabelledImage, tuple[Path, ImageCheck] | None]) -> Report:
    return check_image(place, *pair)
