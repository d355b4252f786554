"""Summarise the labels of an image for manifest.jsonl and JSON lines, and the labels of a folder for run.json."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.label_map import LabelMap
from tipsseg.regions.objects import add_to_wholes, split_levels
from tipsseg.types import BACKGROUND, ConfidenceArray, ImageRef, LabelArray, LabelClass, ignore_id
from tipsseg.util.text import join_first, one_line, pluralize

#: The confidence of pixels that a person labelled.
CERTAIN = 1.0

#: Pixels summed per step.
_PIECE = 1 << 20

#: Maximum number of classes in a line, and of letters in a class name.
_NAMED = 8
_LETTERS = 40


def label_summary(label_map: LabelMap) -> dict[str, object]:
    """Summarise labels.

    Returns:
        `height` and `width` in pixels; `classes`: id, name, pixels, share of the image and mean confidence of the classes in the
        image; `background`: pixels, share and mean confidence of id 0 (None if it has no pixels);
        `ignored`: pixels below the minimum confidence. A pixel of a part counts in its whole too.
        `present` are the ids of the classes that competed, unless all did.
    """
    pixels, sums = _totals(label_map.labels, label_map.confidence)
    pixels, sums = add_to_wholes(pixels, label_map.classes), add_to_wholes(sums, label_map.classes)
    # The confidence of a whole is its own, not its parts'.
    levels = zip(split_levels(label_map.labels, label_map.classes), label_map.whole_confidences, strict=False)
    for labels, confidence in levels:
        own, of_level = _totals(labels, confidence)
        sums[1:] = np.where(own[1:] > 0, of_level[1:], sums[1:])
    ids = range(BACKGROUND, len(label_map.classes) + 1)
    shares = [share_record(pixels[each], sums[each], label_map.labels.size) for each in ids]
    summary = summary_record(label_map.shape, label_map.classes, pixels, shares)
    return summary if label_map.present is None else {**summary, "present": sorted(label_map.present)}


def summary_record(
    size: tuple[int, ...], classes: Sequence[LabelClass], pixels: NDArray[np.int64], shares: Sequence[dict[str, object]]
) -> dict[str, object]:
    """Return a summary; `pixels` are by label id, and `shares` are the records of the background and the classes."""
    return {
        "height": size[0],
        "width": size[1],
        "classes": [{"id": each.id, "name": each.name, **shares[each.id]} for each in classes if pixels[each.id]],
        "background": shares[BACKGROUND],
        "ignored": int(pixels[ignore_id(len(classes))]),
    }


def corrected_summary(
    counts: NDArray[np.int64], classes: tuple[LabelClass, ...], before: Mapping[str, Any]
) -> dict[str, object]:
    """Summarise corrected labels, as `label_summary` does for a run's labels; `counts` is from `count_labels`.

    Classes keep their mean confidence from `before`; a class that was not in it gets CERTAIN.
    """
    size, pixels = (before["height"], before["width"]), add_to_wholes(counts, classes)
    known = (before["background"], *before["classes"])
    means = {each.get("id", BACKGROUND): each["confidence"] for each in known if each["confidence"] is not None}
    shares = []
    for label_id, number in enumerate(pixels[: len(classes) + 1].tolist()):
        confidence = means.get(label_id, CERTAIN) if number else None
        shares.append({"pixels": number, "share": round(number / math.prod(size), 6), "confidence": confidence})
    return {**before, **summary_record(size, classes, pixels, shares)}


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """A class in an image: id, name, number of pixels, and their mean confidence, 0..1."""

    id: int
    name: str
    pixels: int
    confidence: float


@dataclass(frozen=True, slots=True)
class ImageNumbers:
    """The numbers of a `label_summary`.

    Attributes:
        size: (height, width) in pixels.
        background: Pixels of id 0.
        ignored: Pixels below the minimum confidence.
        classes: The classes in the image.
        transform: Of a raster (see `RasterGrid`); None for other images.
        epsg: See `RasterGrid`.
    """

    size: tuple[int, int]
    background: int
    ignored: int
    classes: tuple[ClassNumbers, ...]
    transform: tuple[float, float, float, float, float, float] | None
    epsg: int | None


def image_summary(
    ref: ImageRef, summary: Mapping[str, object], files: Mapping[str, Path], reason: str
) -> dict[str, object]:
    """Return the record of an image for a JSON line.

    Args:
        ref: The image.
        summary: The `label_summary` of its labels.
        files: Its per-image files, by format.
        reason: Why it was labelled, or why its labels stayed.

    Returns:
        `path`: path of the image; `image`: its path relative to the image root, as in COCO's file_name; `mask`: its index mask,
        None for a raster; `files`: all its per-image files; `reason`; then the summary.
    """
    return {
        "path": ref.address,
        "image": ref.name,
        "mask": os.fspath(files["png"]) if "png" in files else None,
        "files": [os.fspath(file) for file in files.values()],
        "reason": reason,
        **summary,
    }


def _totals(labels: LabelArray, confidence: ConfidenceArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixels and the summed confidence of each label id."""
    labels, confidence = cast(LabelArray, labels.reshape(-1)), cast(ConfidenceArray, confidence.reshape(-1))
    ids = int(np.iinfo(labels.dtype).max) + 1
    pixels, sums = np.zeros(ids, np.int64), np.zeros(ids, np.float64)
    for start in range(0, labels.size, _PIECE):  # the arrays below take about 20 bytes per pixel
        piece = labels[start : start + _PIECE]
        # Sum over runs of equal ids, because there are few of them.
        begins = np.ones(len(piece), np.bool_)
        np.not_equal(piece[1:], piece[:-1], out=begins[1:])
        first = np.flatnonzero(begins)
        own, lengths = piece[first], np.diff(first, append=len(piece))
        np.add.at(pixels, own, lengths)
        sums += np.bincount(own, np.add.reduceat(confidence[start : start + _PIECE], first, dtype=np.float64), ids)
    return pixels, sums


def share_record(pixels: np.int64, confidence: np.float64, size: int) -> dict[str, object]:
    """Return the pixels of a label id, their share of an image of `size` pixels, and their mean confidence."""
    return {
        "pixels": int(pixels),
        "share": round(int(pixels) / size, 6),
        "confidence": None if not pixels or np.isnan(confidence) else round(float(confidence) / int(pixels), 4),
    }


class TotalsSum:
    """Totals over images, which are added one by one. Memory grows with the number of classes, not of images."""

    def __init__(self, classes: Sequence[LabelClass]) -> None:
        self._classes = classes
        self._images = self._pixels = self._background = self._ignored = 0
        self._asked: Counter[int] | None = None  # the images in which a class competed, if not all did everywhere
        self._of_class = {each.id: [0, 0] for each in classes}  # images that contain it, and its pixels

    def add(self, numbers: ImageNumbers, present: Collection[int] | None = None) -> None:
        """Add an image; `present` are the ids of the classes that competed, None if all did."""
        if present is not None:
            self._asked = self._asked or Counter({each.id: self._images for each in self._classes})
        if self._asked is not None:
            self._asked.update([*self._of_class] if present is None else present)
        self._images += 1
        self._pixels += numbers.size[0] * numbers.size[1]
        self._background += numbers.background
        self._ignored += numbers.ignored
        for each in numbers.classes:
            if each.id in self._of_class and each.pixels > 0:
                self._of_class[each.id][0] += 1
                self._of_class[each.id][1] += each.pixels

    def record(self) -> dict[str, object]:
        classes = []
        for each in self._classes:
            images, pixels = self._of_class[each.id]
            share = round(pixels / max(self._pixels, 1), 6)
            asked = {} if self._asked is None else {"asked": self._asked[each.id]}
            classes.append(
                {"id": each.id, "name": each.name, "images": images, "pixels": pixels, "share": share, **asked}
            )
        return {
            "images": self._images,
            "pixels": self._pixels,
            "background": self._background,
            "ignored": self._ignored,
            "classes": classes,
        }

    def lines(self) -> Iterator[str]:
        """Yield a line with the classes that were found, largest first, and a line with those that were never found."""
        if not self._images:
            return
        found, never = [], []
        for each in sorted(self._classes, key=lambda each: -self._of_class[each.id][1]):  # stable
            images, pixels = self._of_class[each.id]
            share = pixels / self._pixels
            percent = f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
            if images:
                found.append(f"{_short(each)} {percent} (in {images})")
            else:
                never.append(_short(each))
        if found:
            yield f"Found in {pluralize(self._images, 'image')}, by area: {join_first(found, _NAMED)}."
        if self._asked is not None:
            asked = [f"{_short(each)} {self._asked[each.id]}" for each in self._classes]
            yield f"Images for each name of argument `present`: {join_first(asked, _NAMED)}."
        if never:
            yield f"Never found: {join_first(never, _NAMED)}."


def _short(entry: LabelClass) -> str:
    name = one_line(entry.name) or f"class {entry.id}"
    name = name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."
    return f'"{name}"' if "," in name else name
