"""`tipsseg check`: reads the output folder of a run back and says what is not as a run leaves it.

check_run       run.json, classes.json, shards
check_manifest  manifest.jsonl
check_coco      annotations.json as a whole
check_run_files what other formats have for the whole run
check_image     one image: its own files (check_own_files), annotations (check_annotations), input
check_files     what else is there
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tipsseg.errors import UsageError
from tipsseg.formats import FORMATS
from tipsseg.formats.coco_file import CocoImage
from tipsseg.formats.problem import Problem, unreadable
from tipsseg.runs.check.coco import Annotations
from tipsseg.runs.check.files import Owners, find_strangers, find_temporaries
from tipsseg.runs.check.image import Place, Report, check_image
from tipsseg.runs.check.manifest import Images
from tipsseg.runs.check.run import Run, check_classes, find_runs
from tipsseg.runs.check.run_files import check_run_files
from tipsseg.runs.progress import Progress
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.labelled_image import LabelledImage
from tipsseg.store.run_record import RUN_FILE
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.printable import counted, shell_word
from tipsseg.util.threads import in_order

_COCO = "coco"


@dataclass(slots=True)
class _Tally:
    """What was looked at so far: images, and see Report."""

    images: int = 0
    files: int = 0
    other: int = 0
    gone: int = 0
    edited: int = 0
    behind: int = 0


def check_folder(folder: Path, images: Path | None, jobs: int, progress: Progress) -> Iterator[Problem]:
    """All that is wrong with an output folder; what is worth knowing but not wrong becomes notes of `progress`.

    images  the folder that the images' names begin at, in place of the one that the run noted
    jobs    threads that read images

    Memory does not grow with the number of annotations, and by little more than its name with an image. Raises UsageError where
    `images` is no folder.
    """
    if images is not None and not is_folder(images):
        raise UsageError(f"--images {images}: no such folder", "Give the folder that the images' names begin at.")
    tally = _Tally()
    found = 0
    try:
        for problem in _check(folder, images, jobs, progress, tally):
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
        hint = "" if images is not None else "; give their folder with --images to compare them"
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


def _check(folder: Path, images: Path | None, jobs: int, progress: Progress, tally: _Tally) -> Iterator[Problem]:
    found = find_runs(folder)
    yield from found.problems
    if not found.runs:
        return
    yield from check_classes(folder, found.runs[0])
    _note_runs(folder, found.runs, found.whole, progress)
    with ExitStack() as stack:
        runs = [Images(run) for run in found.runs]
        for each in runs:
            stack.callback(each.close)
            yield from each.read()
        owners = Owners()
        yield from owners.take(runs)
        total = sum(len(each.formats) for each in runs)
        progress.begin(f"{counted(total, 'image')} in {folder}.", total)
        for each in runs:
            annotations = Annotations(each.run)
            holders = {name: None for name, formats in each.formats.items() if _COCO in formats}
            # Before the end of a run it is not written. Images of an earlier run may have been in more formats.
            there = each.run.ended and bool(
                _COCO in each.run.formats or holders or each.run.wrote(annotations.path, folder)
            )
            if there:
                yield from annotations.check(holders)
            yield from _other_run_files(folder, each)
            for name, file in each.run.written.items():
                if is_file(folder / name) and not file.same_bytes(folder / name):
                    progress.note(f"{folder / name}: changed by hand")
            _note_gaps(each, progress)
            place = Place(folder, each.run, images or each.run.image_root)
            pairs = _paired(each, annotations if there else None)
            for report in in_order(jobs, partial(_check_pair, place), pairs):
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
            yield from find_strangers(folder, owners)
            yield from find_temporaries(folder)


def _other_run_files(folder: Path, images: Images) -> Iterator[Problem]:
    """What is wrong with the files of whole formats, but annotations.json; they too are not written before the end of a run."""
    for name in FORMATS:
        held = name in images.run.formats or any(name in formats for formats in images.formats.values())
        if name != _COCO and images.run.ended and held and name not in images.run.converting:
            yield from check_run_files(folder, images, name)


def _note_gaps(images: Images, progress: Progress) -> None:
    """Say which formats do not hold all images; that may be meant so."""
    number = len(images.formats)
    for name in FORMATS:
        held = sum(name in formats for formats in images.formats.values())
        if (held or name in images.run.formats) and held < number and images.run.ended and not images.run.converting:
            progress.note(
                f"In the format {name} are {held} of {counted(number, 'image')}; tipsseg convert writes the others."
            )


def _note_runs(folder: Path, runs: Sequence[Run], whole: bool, progress: Progress) -> None:
    for run in runs:
        if run.failed:
            progress.note(f"{counted(run.failed, 'image')} failed, see {run.state / ERRORS_FILE}")
    if whole and runs[0].shard is not None:
        place = shell_word(str(folder))
        progress.note(f"All {counted(len(runs), 'shard')} ended; join them: tipsseg merge {place} -o {place}")


def _check_pair(place: Place, pair: tuple[LabelledImage, CocoImage | None]) -> Report:
    return check_image(place, *pair)


def _paired(images: Images, annotations: Annotations | None) -> Iterator[tuple[LabelledImage, CocoImage | None]]:
    """All images, each with what annotations.json has of it."""
    seen: set[str] = set()
    for annotated in annotations.images() if annotations is not None else ():
        if _COCO in images.formats.get(annotated.name, ()) and annotated.name not in seen:
            seen.add(annotated.name)
            yield images.get(annotated.name), annotated
    for name in images.formats:
        if name not in seen:
            yield images.get(name), None
