"""Rules of one image: its entry, its own files and links, its annotations, its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import link_path
from tipsseg.formats.coco import FILE_NAME as COCO_FILE
from tipsseg.formats.coco_file import CocoImage
from tipsseg.formats.problem import Problem, by, unreadable
from tipsseg.images.decoding import upright_size
from tipsseg.runs.check.annotations import check_annotations
from tipsseg.runs.check.manifest import check_entry, expected_files
from tipsseg.runs.check.own_files import check_own_file, what_cannot_be_read
from tipsseg.runs.check.run import Run
from tipsseg.store.corrections import MASKS, OF_THE_MODEL, Correction, read_correction
from tipsseg.store.labelled_image import LabelledImage, label_faults
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.stored_masks import read_mask
from tipsseg.types import LabelArray
from tipsseg.util.files import is_file
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.ownership import digest_of
from tipsseg.util.record_paths import actual_path


@dataclass(frozen=True, slots=True)
class Place:
    """Where to find what a run used and made: the output folder, and the folder that the images' names begin at, if known."""

    output: Path
    run: Run
    images: Path | None


@dataclass(slots=True)
class Report:
    """What came of checking an image.

    files     of its own, that were looked at
    edited    those of them that were changed by hand, which is no problem
    behind    1 where a mask was, and the other formats have the labels of before
    other     it was labelled with other settings than run.json says, as may be after a merge
    gone      the input was not to be found
    """

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    edited: list[Path] = field(default_factory=list)
    behind: int = 0
    other: bool = False
    gone: bool = False


def check_image(place: Place, image: LabelledImage, annotated: CocoImage | None) -> Report:
    """Check one image; may be called from several threads. `annotated` is it in annotations.json, None where it is not there."""
    report = Report(other=image.entry.digest != place.run.digest)
    try:
        _check(place, image, annotated, report)
    except OSError as error:  # what is read may fail at any moment
        report.problems.append(unreadable(error, place.output))
    return report


def _check(place: Place, image: LabelledImage, annotated: CocoImage | None, report: Report) -> None:
    run = place.run
    report.problems += [
        Problem(run.state / MANIFEST_FILE, f"{image.entry.image}: {what}") for what in check_entry(run, image)
    ]
    labels: LabelArray | None = None
    corrected: dict[str, Path] = {}
    for name, file in expected_files(image.entry.image, image.entry.formats, run.files.names).items():
        report.files += 1
        path = actual_path(place.output, file)
        if _is_edited(path, image.entry.written.get(name)):
            found = _check_edited(name, path, image, run)
            report.edited += [] if isinstance(found, Problem) else [path]
            if name in MASKS:
                corrected[digest_of(path)] = path
            labels = found if name == "png" and isinstance(found, np.ndarray) else labels
            report.problems += [found] if isinstance(found, Problem) else []
        elif name == "png":  # annotations are compared with it
            try:
                labels = read_mask(path, image.size, len(run.names), run.files.png_mode)
            except ImageError as error:
                report.problems.append(Problem(path, error.reason))
                continue
            if image.entry.corrected is None:
                report.problems += [Problem(path, what) for what in label_faults(labels, image, run.names)]
        elif image.entry.corrected is None or name not in OF_THE_MODEL:
            report.problems += [Problem(path, what) for what in check_own_file(name, path, image, run)]
    if len(corrected) > 1:
        one, other = corrected.values()
        report.problems.append(Problem(one, f"changed by hand, and {other} was changed in another way"))
    elif corrected and image.entry.corrected not in corrected:
        report.behind += 1
    _check_links(place, image, run.files.names, report)
    if annotated is not None:
        path = run.state / COCO_FILE
        report.problems += [Problem(path, what) for what in check_annotations(image, annotated, run, labels)]
    _check_input(None if place.images is None else actual_path(place.images, image.entry.image), image, report)


def _is_edited(path: Path, written: Fingerprint | None) -> bool:
    """Whether a file is there, and its content is not what the run wrote."""
    try:
        return written is not None and not written.same_bytes(path)
    except OSError:  # told where it is read
        return False


def _check_edited(name: str, path: Path, image: LabelledImage, run: Run) -> LabelArray | Problem | None:
    """What is wrong with a file that a person changed; of a mask that the other formats follow, its labels.

    What is in others is that person's affair, as long as it can be read.
    """
    if name not in MASKS:
        reason = what_cannot_be_read(path, image.size)
        return Problem(path, f"changed since it was written, and {reason}") if reason else None
    correction = Correction(name, path, digest_of(path))
    try:
        labels = read_correction(correction, image.size, len(run.names), run.files)
    except ImageError as error:
        return Problem(path, error.reason)
    if correction.digest != image.entry.corrected:
        return None  # not taken into the other formats yet
    return next((Problem(path, what) for what in label_faults(labels, image, run.names)), labels)


def _check_links(place: Place, image: LabelledImage, names: str, report: Report) -> None:
    for name in image.entry.formats:
        relative = link_path(name, PurePosixPath(image.entry.image), names)
        if relative is not None:
            path = actual_path(place.output, str(relative))
            if not path.exists():
                report.problems.append(Problem(path, "it leads to no file" if path.is_symlink() else "missing"))


def _check_input(path: Path | None, image: LabelledImage, report: Report) -> None:
    if path is None or not is_file(path):
        report.gone = True
        return
    try:
        if not image.entry.fingerprint.matches(path):
            report.problems.append(Problem(path, "changed since it was labelled"))
        elif (size := upright_size(path)) != image.size:
            report.problems.append(Problem(path, f"{by(size)}, but labelled as {by(image.size)}"))
    except ImageError as error:
        report.problems.append(Problem(path, error.reason))
