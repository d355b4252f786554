"""The labels of an image, read back from what a run wrote of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, Rows, RunContext, run_files
from tipsseg.regions.rle import inside
from tipsseg.store.labelled_image import LabelledImage, label_faults
from tipsseg.store.reader import check_hint
from tipsseg.store.stored_masks import UNREADABLE, read_arrays, read_mask, read_picture, what_is_wrong
from tipsseg.store.stored_rows import LISTS, StoredObject, stored_objects
from tipsseg.types import ConfidenceArray, LabelArray, TopClasses, label_dtype
from tipsseg.util.files import file_size
from tipsseg.util.record_paths import actual_path

_NOT_AS_WRITTEN = "Move the file away and label the image again."
_LEFT_OUT = "It lists no ignored pixels and no objects below --min-area; label with --format png."


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image of a run that has ended.

    labelled  what the manifest says of it
    records   in a format of `stored_rows.LISTS` that holds it, where there is one
    classes   how many there are
    """

    labelled: LabelledImage
    rows: Mapping[str, Rows]
    classes: int

    @cached_property
    def objects(self) -> Mapping[str, list[StoredObject]]:
        """What is in its records. Raises ValueError where they are not as they were written."""
        found = {name: stored_objects(name, records, self.labelled.size) for name, records in self.rows.items()}
        for each in chain.from_iterable(found.values()):
            if not 1 <= each.class_id <= self.classes:
                raise ValueError(f"an object of a class {each.class_id} that there is not")
        return found

    @property
    def name(self) -> str:
        """Its name."""
        return self.labelled.entry.image

    def holds(self, name: str) -> bool:
        """Whether it is in a format, and that format can be read."""
        return name in self.labelled.entry.formats and (name not in LISTS or name in self.rows)

    def image_path(self, name: str, output: Path) -> Path:
        """Where its own file is in a format that has one and holds it."""
        return actual_path(output, self.labelled.entry.files[name])


@dataclass(frozen=True, slots=True, eq=False)
class _Archive:
    labels: LabelArray
    confidence: NDArray[np.uint8]
    top: TopClasses


def read_labels(stored: StoredImage, context: RunContext) -> LabelArray:
    """The label ids of an image [H, W], from the first of LABELS that is there.

    `context` is that of the run; of a mask that was corrected see `corrections`. Raises ImageError where there is none, and for a
    file that is not as the run wrote it: nobody is to take older labels, from another file, for newer ones.
    """
    for name, read in LABELS.items():
        if not stored.holds(name) or _is_gone(name, stored, context):
            continue
        try:
            labels = read(stored, context)
        except UNREADABLE as error:
            raise _failure(name, stored, context, what_is_wrong(error)) from error
        names = {each.id: each.name for each in context.classes}
        wrong = next(label_faults(labels, stored.labelled, names), "") or _other_content(name, stored, context)
        if wrong:
            raise _failure(name, stored, context, wrong)
        return labels
    raise ImageError(context.output, f"no labels of {stored.name} are left", check_hint(context.output))


def _is_gone(name: str, stored: StoredImage, context: RunContext) -> bool:
    return name in stored.labelled.entry.files and not stored.image_path(name, context.output).exists()


def _other_content(name: str, stored: StoredImage, context: RunContext) -> str:
    """What is wrong with a file that is not as it was written, by size or content; "" for others."""
    known = stored.labelled.entry.written.get(name)
    size = None if known is None else file_size(stored.image_path(name, context.output))
    if known is None:
        return ""
    if size != known.size:
        return f"{size} bytes, where the manifest says {known.size}"
    return "" if known.same_bytes(stored.image_path(name, context.output)) else "changed since it was written"


def suffices(name: str, held: Collection[str]) -> bool:
    """Whether images in the formats `held` can be written in format `name` as the run would have, scores of objects included."""
    form = FORMATS[name]
    if form.top:
        return False
    if form.confidence:
        return "npz" in held
    whole = any(each in held for each in LABELS if each not in LISTS)
    return whole and (not form.scores or any(each in held for each in LISTS))


def unknown_confidence(size: tuple[int, int]) -> NDArray[np.float32]:
    """The confidence [H, W] of labels whose confidence is not known: nan, which cannot be taken for one. Takes no memory."""
    return np.broadcast_to(np.float32(np.nan), size)


def is_known(confidence: ConfidenceArray) -> bool:
    """Whether it is not `unknown_confidence`."""
    return not bool(np.isnan(confidence[0, 0]))


def read_confidence(stored: StoredImage, context: RunContext) -> tuple[NDArray[np.float32], TopClasses | None]:
    """The confidence [H, W] in one of CONFIDENCES, where there is one, and the best classes of each patch, where those are too.

    Raises ImageError where the file cannot be read.
    """
    size = stored.labelled.size
    for name in CONFIDENCES:
        if not stored.holds(name):
            continue
        path = stored.image_path(name, context.output)
        try:
            if name == "npz":
                archive = _read_archive(path, size, len(context.classes))
                return _as_share(archive.confidence), archive.top
            return _as_share(read_picture(path, "L", size)), None
        except UNREADABLE as error:
            raise _failure(name, stored, context, what_is_wrong(error)) from error
    return unknown_confidence(size), None


def _as_share(confidence: NDArray[np.generic]) -> NDArray[np.float32]:
    return confidence.astype(np.float32) / np.float32(255)


def _mask(name: str) -> Callable[[StoredImage, RunContext], LabelArray]:
    def read(stored: StoredImage, context: RunContext) -> LabelArray:
        mode = context.files.png_mode if name == "png" else "L"
        return read_mask(stored.image_path(name, context.output), stored.labelled.size, len(context.classes), mode)

    return read


def _archived(stored: StoredImage, context: RunContext) -> LabelArray:
    path = stored.image_path("npz", context.output)
    return _read_archive(path, stored.labelled.size, len(context.classes)).labels


def _read_archive(path: Path, size: tuple[int, int], number_of_classes: int) -> _Archive:
    labels, confidence, ids, scores = read_arrays(path, ("labels", "confidence", "top_ids", "top_scores"), size)
    wanted = label_dtype(number_of_classes)
    if not labels.shape == confidence.shape == size or labels.dtype != wanted or confidence.dtype != np.uint8:
        raise ValueError(f"{labels.dtype} {list(labels.shape)} and {confidence.dtype} {list(confidence.shape)}")
    if ids.ndim != 3 or ids.shape != scores.shape or ids.dtype != wanted or scores.dtype != np.float16:
        raise ValueError(f"{ids.dtype} {list(ids.shape)} and {scores.dtype} {list(scores.shape)}")
    return _Archive(labels, confidence, TopClasses(ids, scores))


def _painted(name: str) -> Callable[[StoredImage, RunContext], LabelArray]:
    def read(stored: StoredImage, context: RunContext) -> LabelArray:
        # [W, H], as codes go down the columns
        labels: LabelArray = np.zeros(stored.labelled.size[::-1], label_dtype(len(context.classes)))
        for each in stored.objects[name]:
            if each.runs is None or each.runs[-1, 1] > labels.size:
                raise ValueError("an object that is not in the image")
            labels.reshape(-1)[each.runs[0, 0] : each.runs[-1, 1]][inside(each.runs)] = each.class_id
        return labels.T.copy()

    return read


def _failure(name: str, stored: StoredImage, context: RunContext, reason: str) -> ImageError:
    if name in stored.labelled.entry.files:
        path = stored.image_path(name, context.output)
        return ImageError(path, reason, _NOT_AS_WRITTEN if path.exists() else check_hint(context.output))
    return ImageError(run_files(name, context)[0].path, f"{stored.name}: {reason}", _LEFT_OUT)


#: The formats that hold labels, those first that hold all of them.
LABELS: Mapping[str, Callable[[StoredImage, RunContext], LabelArray]] = {
    "png": _mask("png"),
    "hf": _mask("hf"),
    "npz": _archived,
    "coco": _painted("coco"),
    "coco-results": _painted("coco-results"),
}

#: The formats that hold confidences.
CONFIDENCES = ("npz", "confidence")
