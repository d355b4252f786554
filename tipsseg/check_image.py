"""Rules of one image: its entry, its pictures, its annotations, its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.check_annotations import check_annotations
from tipsseg.check_manifest import LabelledImage, check_entry, expected_files
from tipsseg.check_problem import Problem, by, class_text
from tipsseg.check_run import Run
from tipsseg.errors import ImageError, InputError
from tipsseg.files import is_file
from tipsseg.images import decode_file, upright_size
from tipsseg.manifest import MANIFEST_FILE
from tipsseg.record_values import actual_path
from tipsseg.records import BACKGROUND, LabelArray, ignore_id, label_dtype
from tipsseg.regions import count_labels
from tipsseg.writers.coco import FILE_NAME as COCO_FILE
from tipsseg.writers.coco_file import CocoImage


@dataclass(frozen=True, slots=True)
class Place:
    """Where to find what a run used and made: the output folder, and the folder that the images' names begin at, if known."""

    output: Path
    run: Run
    images: Path | None


@dataclass(slots=True)
class Report:
    """What came of checking an image.

    pictures  how many of them were looked at
    other     it was labelled with other settings than run.json says, as may be after a merge
    gone      the input was not to be found
    """

    problems: list[Problem] = field(default_factory=list)
    pictures: int = 0
    other: bool = False
    gone: bool = False


def check_image(place: Place, image: LabelledImage, annotated: CocoImage | None) -> Report:
    """Check one image; may be called from several threads. `annotated` is it in annotations.json, None where it is not there."""
    run = place.run
    report = Report(other=image.entry.digest != run.digest)
    report.problems += [
        Problem(run.records / MANIFEST_FILE, f"{image.entry.image}: {what}") for what in check_entry(run, image)
    ]
    labels: LabelArray | None = None
    for name, file in expected_files(image.entry.image, image.entry.formats).items():
        report.pictures += 1
        path = actual_path(place.output, file)
        try:
            if name == "png":
                labels = _read_labels(path, image, run)
                report.problems += [Problem(path, what) for what in _check_labels(labels, image, run)]
            elif name == "confidence":
                decode_file(path, lambda picture: _stored(picture, "L", image.size))
            else:  # drawn for eyes, in a size of its own
                decode_file(path, lambda picture: picture.load())
        except ImageError as error:
            report.problems.append(Problem(path, error.reason))
    if annotated is not None:
        path = run.records / COCO_FILE
        report.problems += [Problem(path, what) for what in check_annotations(image, annotated, run, labels)]
    _check_input(None if place.images is None else actual_path(place.images, image.entry.image), image, report)
    return report


def _read_labels(path: Path, image: LabelledImage, run: Run) -> LabelArray:
    """The ids in a mask [H, W]; raises ImageError where it is not a mask of such an image."""
    if label_dtype(len(run.names)) is np.uint8:
        return decode_file(path, lambda picture: _stored(picture, run.files.png_mode, image.size)).astype(np.uint8)
    return decode_file(path, lambda picture: _stored(picture, "I;16", image.size)).astype(np.uint16)


def _stored(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    """The numbers in a grey PNG [H, W]; raises InputError for a picture of another kind or size."""
    if picture.format != "PNG" or picture.mode != mode:
        raise InputError(f"a {picture.format} of mode {picture.mode}, not a PNG of mode {mode}")
    width, height = picture.size
    if (height, width) != size:
        raise InputError(f"{by((height, width))}, where the manifest says {by(size)}")
    picture.load()
    return np.asarray(picture)


def _check_labels(labels: LabelArray, image: LabelledImage, run: Run) -> Iterator[str]:
    counts = count_labels(labels)
    known = {BACKGROUND: "background", ignore_id(len(run.names)): "ignored pixels"}
    known |= {label_id: class_text(run.names, label_id) for label_id in run.names}
    found = {label_id: int(counts[label_id]) for label_id in np.flatnonzero(counts).tolist()}
    if unknown := sorted(found.keys() - known):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        yield f"ids that are no class: {unknown[0]}{more}"
    for label_id, what in known.items():
        number, wanted = found.get(label_id, 0), image.pixels.get(label_id, 0)
        if number != wanted:
            yield f"{number} pixels of {what}, where the manifest says {wanted}"


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
