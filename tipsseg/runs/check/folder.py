"""`tipsseg check`: verify the output folder of a run, and list its faults.

run       checks run.json, classes.json and shards
manifest  checks the image records, and finds files that belong to no image
image     checks one image: its entry, its per-image files, its input

Files are compared with their recorded digests. Index masks are decoded too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS, model_only_formats
from tipsseg.options import MAX_PIXELS
from tipsseg.runs.check.image import Report, check_image
from tipsseg.runs.check.manifest import (
    check_export,
    check_records,
    check_shared_files,
    find_orphans,
    find_temporaries,
)
from tipsseg.runs.check.run import check_classes, find_runs
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.progress import Progress
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.open_run import Run
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.writing import run_files
from tipsseg.util.files import is_file
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.printable import pluralize, shell_word
from tipsseg.util.problem import Problem, unreadable_problem
from tipsseg.util.record_paths import actual_path
from tipsseg.util.threads import map_in_order


@dataclass(slots=True)
class _Tally:
    """Sums over image reports, see Report."""

    images: int = 0
    files: int = 0
    other: int = 0
    gone: int = 0
    edited: int = 0
    behind: int = 0
    moved: set[str] = field(default_factory=set)

    def add(self, report: Report) -> None:
        self.images += 1
        self.files += report.files
        self.other += report.other
        self.gone += report.gone
        self.edited += len(report.edited)
        self.behind += report.behind
        self.moved |= report.moved


def check_folder(
    folder: Path, images: Path | None, jobs: int, progress: Progress, max_pixels: int = MAX_PIXELS
) -> Iterator[Problem]:
    """Find the faults of an output folder. Memory grows by about 200 bytes per image.

    Args:
        folder: The output folder.
        images: The folder that image names are relative to, instead of the recorded one.
        jobs: Number of threads that read images.
        progress: Prints the progress, and notes about differences that are not problems.
        max_pixels: Report larger images as problems.

    Yields:
        The problems, sorted by image name.

    Raises:
        UsageError: `images` is not a folder.
    """
    check_image_root(images)
    tally = _Tally()
    found = 0
    try:
        for problem in _check(folder, images, jobs, progress, max_pixels, tally):
            found += 1
            yield problem
    except (OSError, OutputError) as error:  # any read may fail
        found += 1
        yield unreadable_problem(error, folder) if isinstance(error, OSError) else Problem(error.path, error.reason)
    if tally.other:
        progress.note(f"{pluralize(tally.other, 'image')} labelled with settings that differ from {RUN_FILE}.")
    if images is not None and tally.gone == tally.images > 0:
        found += 1
        yield Problem(images, "none of the images is in this folder")
    elif tally.gone:
        hint = "" if images is not None else "; pass their folder as argument `images` to compare them"
        progress.note(f"{pluralize(tally.gone, 'input')} not found, so not compared{hint}.")
    if tally.edited:
        progress.note(
            f"{pluralize(tally.edited, 'file')} changed by hand, which is fine; "
            f"tipsseg convert {shell_word(str(folder))} --format FORMAT writes edited masks in other formats."
        )
    if tally.behind:
        progress.note(
            f"Other formats of {pluralize(tally.behind, 'corrected image')} still have the labels from before the correction."
        )
    looked = f"{pluralize(tally.images, 'image')}, {pluralize(tally.files, 'file')} checked"
    progress.note(f"{looked}: {pluralize(found, 'problem') if found else 'nothing wrong'}.")


def _check(
    folder: Path, images: Path | None, jobs: int, progress: Progress, max_pixels: int, tally: _Tally
) -> Iterator[Problem]:
    with ExitStack() as stack:
        found = find_runs(folder, max_pixels, stack)
        yield from found.problems
        runs = found.runs
        if not runs:
            return
        yield from check_classes(folder, runs[0].info)
        _note_runs(folder, runs, found.whole, progress)
        complete = found.whole
        for run in runs:
            for problem in check_records(run):
                complete = False
                yield problem
            yield from check_export(run)
        yield from check_shared_files(runs)
        total = sum(map(len, runs))
        progress.begin(f"{pluralize(total, 'image')} in {folder}.", total)
        for run in runs:
            yield from _check_run_files(run, progress)
            _note_gaps(run, progress)
            noted = run.info.image_root
            root = images or (None if noted is None else actual_path(Path(), noted))
            for report in map_in_order(
                jobs, partial(check_image, root, anywhere=images is None), map(run.image, run.records.entries())
            ):
                for path in report.edited:
                    progress.note(f"{path}: changed by hand")
                tally.add(report)
                progress.advance()
                yield from report.problems
        if complete:
            yield from find_orphans(folder, runs, tally.moved)
            yield from find_temporaries(folder)


def _check_run_files(run: Run, progress: Progress) -> Iterator[Problem]:
    """Compare the formats' files for the whole run with their digests; note other files that were changed by hand."""
    info, checked = run.info, set()
    held = set().union(*run.records.formats())
    for name in FORMATS:
        # These files are written at the end of a run. Images of an earlier run may have more formats.
        if info.ended is None or name in info.converting or name not in held.union(info.spec.formats):
            continue
        for file in run_files(name, run.context):
            if name in held or info.images or os.path.lexists(file.path):  # a run without images writes none
                place = file.path.relative_to(run.output).as_posix()
                checked.add(place)
                yield from _check_digest(file.path, info.files.get(place))
    for place, written in info.files.items():
        path = run.output / place
        if place not in checked and is_file(path) and not written.same_bytes(path):
            progress.note(f"{path}: changed by hand")


def _check_digest(path: Path, written: Fingerprint | None) -> Iterator[Problem]:
    if not is_file(path):
        yield Problem(path, "missing")
    elif written is None:
        yield Problem(path, f"not listed in {RUN_FILE}")
    elif not written.same_bytes(path):
        yield Problem(path, "changed since it was written")


def _note_gaps(run: Run, progress: Progress) -> None:
    if run.info.ended is None or run.info.converting:
        return
    for name in FORMATS:
        held = len(run.records.holding(name))
        if (held or name in run.formats) and held < len(run):
            progress.note(
                f"Format {name} has {held} of {pluralize(len(run), 'image')}; "
                + (
                    "only the model can write the others."
                    if name in model_only_formats()
                    else "tipsseg convert writes the others."
                )
            )


def _note_runs(folder: Path, runs: Sequence[Run], whole: bool, progress: Progress) -> None:
    for run in runs:
        if failed := run.info.counts.failed:
            progress.note(f"{pluralize(failed, 'image')} failed, see {run.state / ERRORS_FILE}")
    if whole and runs[0].shard is not None:
        place = shell_word(str(folder))
        progress.note(f"All {pluralize(len(runs), 'shard')} are finished; join them: tipsseg merge {place} -o {place}")
