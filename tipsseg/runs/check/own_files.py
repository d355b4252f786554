"""Rules of an image's own file in the formats that have one: it can be read, and agrees with the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tipsseg.formats.problem import by, class_text
from tipsseg.images.decoding import decode_stored
from tipsseg.runs.check.run import Run
from tipsseg.store.labelled_image import LabelledImage, label_faults
from tipsseg.store.stored_masks import UNREADABLE, read_arrays, read_mask, read_picture, what_is_wrong
from tipsseg.types import BACKGROUND, ignore_id, label_dtype
from tipsseg.util.files import read_regular
from tipsseg.util.json_values import parse, short, take
from tipsseg.vocabulary.palette import voc_colour

#: What is wrong with a file. Raises ImageError, OSError and ValueError where it cannot be read.
Check = Callable[[Path, LabelledImage, Run], Iterator[str]]


def check_own_file(name: str, path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    """What is wrong with an image's file in format `name`, but for "png": see check_image."""
    try:
        yield from dict.fromkeys(_CHECKS[name](path, image, run))  # each fault once
    except UNREADABLE as error:
        yield what_is_wrong(error)


def what_cannot_be_read(path: Path, size: tuple[int, int]) -> str:
    """Why a file of an image of `size` (height, width) cannot be read as what its suffix says; "" where it can."""
    try:
        if path.suffix == ".json":
            parse(read_regular(path))
        elif path.suffix == ".npz":
            read_arrays(path, (), size)
        elif path.suffix in (".png", ".jpg"):
            decode_stored(path)
    except UNREADABLE as error:
        return what_is_wrong(error)
    return ""


def _check_hf(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    yield from label_faults(read_mask(path, image.size, len(run.names), "L"), image, run.names)


def _check_confidence(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    read_picture(path, "L", image.size)
    yield from ()


def _check_overlay(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    decode_stored(path)  # drawn for eyes, in a size of its own
    yield from ()


def _check_panoptic(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    """Its segments are compared with panoptic.json, see check_run_files."""
    read_picture(path, "RGB", image.size)
    yield from ()


def _check_cvat(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    colours = read_picture(path, "RGB", image.size).astype(np.int32)  # [H, W, 3]
    values, counts = np.unique(colours @ np.array([65536, 256, 1]), return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    left_out = image.pixels.get(ignore_id(len(run.names)), 0)
    for label_id in (BACKGROUND, *run.names):
        red, green, blue = voc_colour(label_id)
        number = found.pop(red * 65536 + green * 256 + blue, 0)
        wanted = image.pixels.get(label_id, 0) + (left_out if label_id == BACKGROUND else 0)
        if number != wanted:
            what = "background" if label_id == BACKGROUND else class_text(run.names, label_id)
            yield f"{number} pixels of {what}, where the manifest says {wanted}"
    if found:
        yield f"a colour that is no class: #{min(found):06x}"


def _check_npz(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    labels, confidence, ids, scores = read_arrays(path, ("labels", "confidence", "top_ids", "top_scores"), image.size)
    if labels.dtype != label_dtype(len(run.names)) or labels.shape != image.size:
        yield f"its labels are {labels.dtype} {list(labels.shape)}, where the manifest says {by(image.size)}"
        return
    yield from label_faults(labels, image, run.names)
    if confidence.dtype != np.uint8 or confidence.shape != image.size:
        yield f"its confidence is {confidence.dtype} {list(confidence.shape)}"
    if ids.shape != scores.shape or ids.ndim != 3 or ids.dtype != labels.dtype or scores.dtype != np.float16:
        yield f"its top_ids are {ids.dtype} {list(ids.shape)}, its top_scores {scores.dtype} {list(scores.shape)}"
    elif not np.isin(ids, (BACKGROUND, *run.names)).all():
        yield "its top_ids have ids that are no class"


def _check_yolo(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    for number, line in enumerate(read_regular(path).decode("ascii").splitlines(), start=1):
        first, *rest = line.split() or [""]
        corners = np.array(rest, np.float64)
        if len(corners) < 6 or len(corners) % 2 or not ((corners >= 0) & (corners <= 1)).all():
            yield f"line {number} has no polygon"
        elif int(first) + 1 not in image.names:
            yield f"line {number} has the class {first}, counted from 0, which the manifest does not have"


def _check_labelme(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    record = parse(read_regular(path))
    size = take(record, "imageHeight", int), take(record, "imageWidth", int)
    if size != image.size:
        yield f"{by(size)}, where the manifest says {by(image.size)}"
    for shape in take(record, "shapes", list):
        if len(take(shape, "points", list)) < 3:
            yield "a shape has no polygon"
        if take(shape, "label", str) not in image.names.values():
            yield f"a shape of {short(shape['label'])}, which the manifest does not have"


_CHECKS: Mapping[str, Check] = {
    "panoptic": _check_panoptic,
    "yolo": _check_yolo,
    "labelme": _check_labelme,
    "cvat": _check_cvat,
    "hf": _check_hf,
    "npz": _check_npz,
    "overlay": _check_overlay,
    "confidence": _check_confidence,
}
