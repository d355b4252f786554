"""`tipsseg check`: reads the output folder of a run back and says what is not as a run leaves it.

run       run.json, classes.json, shards
manifest  manifest.jsonl
image     one image: its entry, its per-image files, its input
files     what else is there

What a format wrote is held against the digests in the records. Index masks are read beside that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tipsseg.formats import FORMATS, of_the_model
from tipsseg.formats.problem import Problem, unreadable
from tipsseg.options import MAX_PIXELS
from tipsseg.runs.check.image import Place, check_image
from tipsseg.runs.check.manifest import Images, Owners, find_orphans, find_temporaries
from tipsseg.runs.check.run import check_classes, find_runs
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.progress import Progress
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.run_record import RUN_FILE, run_context
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import run_files
from tipsseg.util.files import is_file
from tipsseg.util.fingerprint import Fingerprint
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
            yield from _check_run_files(each, progress)
            _note_gaps(each, progress)
            noted = each.run.image_root
            root = images or (None if noted is None else actual_path(Path(), noted))
            place = Place(folder, each.run, root, max_pixels)
            for report in in_order(jobs, partial(check_image, place), map(each.get, each.formats)):
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


def _check_run_files(images: Images, progress: Progress) -> Iterator[Problem]:
    """Hold the files that formats have for the whole run against their digests; say which other files were changed by hand."""
    run, checked = images.run, set()
    for name in FORMATS:
        held = any(name in formats for formats in images.formats.values())
        # Before the end of a run they are not written. Images of an earlier run may have been in more formats.
        if run.ended is None or name in run.converting or not (held or name in run.spec.formats):
            continue
        for file in run_files(name, run_context(run)):
            if held or run.images or os.path.lexists(file.path):  # a run without an image writes none
                place = file.path.relative_to(run.spec.output).as_posix()
                checked.add(place)
                yield from _check_digest(file.path, run.files.get(place))
    for place, written in run.files.items():
        path = run.spec.output / place
        if place not in checked and is_file(path) and not written.same_bytes(path):
            progress.note(f"{path}: changed by hand")


def _check_digest(path: Path, written: Fingerprint | None) -> Iterator[Problem]:
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
