"""Rules of an image's own file in the formats that have one: it can be read, and agrees with the manifest."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.check_manifest import LabelledImage
from tipsseg.check_problem import by, class_text
from tipsseg.check_run import Run
from tipsseg.errors import ImageError, InputError
from tipsseg.images import decode_file, reason_of
from tipsseg.palette import voc_colour
from tipsseg.record_values import short, take
from tipsseg.records import BACKGROUND, LabelArray, ignore_id, label_dtype
from tipsseg.regions import count_labels

#: What is wrong with a file. Raises ImageError, OSError and ValueError where it cannot be read.
Check = Callable[[Path, LabelledImage, Run], Iterator[str]]


def check_own_file(name: str, path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    """What is wrong with an image's file in format `name`, but for "png": see `read_mask` and `label_faults`."""
    try:
        yield from _CHECKS[name](path, image, run)
    except ImageError as error:
        yield error.reason
    except OSError as error:
        yield reason_of(error)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        yield f"not as tipsseg writes it: {error}"


def read_mask(path: Path, image: LabelledImage, run: Run, mode: str) -> LabelArray:
    """The ids in an index mask [H, W], of `mode` "L" or "P" up to 254 classes; raises ImageError where it is no such mask."""
    if label_dtype(len(run.names)) is np.uint8:
        return decode_file(path, lambda picture: _stored(picture, mode, image.size)).astype(np.uint8)
    return decode_file(path, lambda picture: _stored(picture, "I;16", image.size)).astype(np.uint16)


def label_faults(labels: LabelArray, image: LabelledImage, run: Run) -> Iterator[str]:
    """Ids that are no class, and numbers of pixels that are not the manifest's."""
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


def _check_hf(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    yield from label_faults(read_mask(path, image, run, "L"), image, run)


def _check_confidence(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    decode_file(path, lambda picture: _stored(picture, "L", image.size))
    yield from ()


def _check_overlay(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    decode_file(path, lambda picture: picture.load())  # drawn for eyes, in a size of its own
    yield from ()


def _check_panoptic(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    """Its segments are compared with panoptic.json, see check_run_files."""
    decode_file(path, lambda picture: _stored(picture, "RGB", image.size))
    yield from ()


def _check_cvat(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    colours = decode_file(path, lambda picture: _stored(picture, "RGB", image.size)).astype(np.int32)  # [H, W, 3]
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
    with np.load(path, allow_pickle=False) as archive:
        labels, confidence, ids, scores = (archive[key] for key in ("labels", "confidence", "top_ids", "top_scores"))
    if labels.dtype != label_dtype(len(run.names)) or labels.shape != image.size:
        yield f"its labels are {labels.dtype} {list(labels.shape)}, where the manifest says {by(image.size)}"
        return
    yield from label_faults(labels, image, run)
    if confidence.dtype != np.uint8 or confidence.shape != image.size:
        yield f"its confidence is {confidence.dtype} {list(confidence.shape)}"
    if ids.shape != scores.shape or ids.ndim != 3:
        yield f"its top_ids are {list(ids.shape)}, its top_scores {list(scores.shape)}"


def _check_yolo(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    for number, line in enumerate(path.read_text("ascii").splitlines(), start=1):
        first, *rest = line.split()
        corners = np.array(rest, np.float64)
        if len(corners) < 6 or len(corners) % 2 or not ((corners >= 0) & (corners <= 1)).all():
            yield f"line {number} has no polygon"
        if not image.pixels.get(int(first) + 1, 0):
            yield f"line {number} is of {class_text(run.names, int(first) + 1)}, which the manifest does not have"


def _check_labelme(path: Path, image: LabelledImage, run: Run) -> Iterator[str]:
    record = json.loads(path.read_bytes())
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


def _stored(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    """The numbers in a PNG [H, W] or [H, W, 3]; raises InputError for a picture of another kind or size."""
    if picture.format != "PNG" or picture.mode != mode:
        raise InputError(f"a {picture.format} of mode {picture.mode}, not a PNG of mode {mode}")
    width, height = picture.size
    if (height, width) != size:
        raise InputError(f"{by((height, width))}, where the manifest says {by(size)}")
    picture.load()
    return np.asarray(picture)
