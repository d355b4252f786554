"""Summarise the labels of an image for manifest.jsonl and JSON lines, and the labels of a folder for run.json."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.label_map import LabelMap
from tipsseg.regions.components import count_labels
from tipsseg.regions.objects import count_pixels
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, LabelClass, ignore_id
from tipsseg.util.json import take
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
        image; `background`: pixels, share and mean confidence of id 0 (None if it has no pixels, or if classes overlap);
        `ignored`: pixels below the minimum confidence. If classes overlap, a pixel counts in each of them.
    """
    height, width = label_map.shape
    pixels, sums = _totals(label_map) if label_map.layers is None else _layer_totals(label_map)
    classes = [
        {"id": entry.id, "name": entry.name, **share_record(pixels[entry.id], sums[entry.id], height * width)}
        for entry in label_map.classes
        if pixels[entry.id]
    ]
    return {
        "height": height,
        "width": width,
        "classes": classes,
        "background": share_record(pixels[BACKGROUND], sums[BACKGROUND], height * width),
        "ignored": int(pixels[label_map.ignore]),
    }


def _layer_totals(label_map: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixels and the summed confidence of each label id; NaN for the background, whose confidence is unknown."""
    pixels = count_pixels(label_map.labels, label_map.layers)
    sums = np.zeros(len(pixels), np.float64)
    sums[BACKGROUND] = np.nan
    for layer in label_map.layers or ():
        assert layer.confidence is not None
        sums[layer.region.class_id] = layer.confidence.sum(dtype=np.float64)
    return pixels, sums


def corrected_summary(
    labels: LabelArray, classes: tuple[LabelClass, ...], before: Mapping[str, Any]
) -> dict[str, object]:
    """Summarise corrected labels [H, W], as `label_summary` does for a run's labels.

    Classes keep their mean confidence from `before`; a class that was not in it gets CERTAIN.
    """
    height, width = labels.shape
    pixels = count_labels(labels)
    shares = (before["background"], *before["classes"])
    means = {each.get("id", BACKGROUND): each["confidence"] for each in shares if each["confidence"] is not None}

    def share(label_id: int) -> dict[str, object]:
        number = int(pixels[label_id])
        confidence = means.get(label_id, CERTAIN) if number else None
        return {"pixels": number, "share": round(number / (height * width), 6), "confidence": confidence}

    return {
        "height": height,
        "width": width,
        "classes": [{"id": each.id, "name": each.name, **share(each.id)} for each in classes if pixels[each.id]],
        "background": share(BACKGROUND),
        "ignored": int(pixels[ignore_id(len(classes))]),
    }


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
    """

    size: tuple[int, int]
    background: int
    ignored: int
    classes: tuple[ClassNumbers, ...]


def read_summary(summary: Mapping[str, object]) -> ImageNumbers:
    """Return the numbers of a `label_summary`. Raises ValueError if one is missing."""
    return ImageNumbers(
        (take(summary, "height", int), take(summary, "width", int)),
        take(take(summary, "background", dict), "pixels", int),
        take(summary, "ignored", int),
        take(summary, "classes", tuple[ClassNumbers, ...]),
    )


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
        None without the format png; `files`: all its per-image files; `reason`; then the summary.
    """
    return {
        "path": ref.address,
        "image": ref.name,
        "mask": os.fspath(files["png"]) if "png" in files else None,
        "files": [os.fspath(file) for file in files.values()],
        "reason": reason,
        **summary,
    }


def _totals(label_map: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    labels, confidence = label_map.labels.reshape(-1), label_map.confidence.reshape(-1)
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


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """The number of images that contain a class, and the number of its pixels."""

    id: int
    name: str
    images: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals over all images.

    Attributes:
        images: Number of images.
        pixels: Number of pixels.
        background: Number of background pixels.
        ignored: Number of ignored pixels.
        classes: The total of each class, by id.
    """

    images: int
    pixels: int
    background: int
    ignored: int
    classes: tuple[ClassTotal, ...]

    def record(self) -> dict[str, object]:
        return {
            "images": self.images,
            "pixels": self.pixels,
            "background": self.background,
            "ignored": self.ignored,
            "classes": [
                {
                    "id": each.id,
                    "name": each.name,
                    "images": each.images,
                    "pixels": each.pixels,
                    "share": round(each.pixels / max(self.pixels, 1), 6),
                }
                for each in self.classes
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield a line with the classes that were found, largest first, and a line with those that were never found."""
        if not self.images:
            return
        found = sorted((each for each in self.classes if each.images), key=lambda each: -each.pixels)  # stable
        if found:
            of_all = join_first([self._of_class(each) for each in found], _NAMED)
            yield f"Found in {pluralize(self.images, 'image')}, by area: {of_all}."
        if never := [_short(each) for each in self.classes if not each.images]:
            yield f"Never found: {join_first(never, _NAMED)}."

    def _of_class(self, entry: ClassTotal) -> str:
        share = entry.pixels / self.pixels
        percent = f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
        return f"{_short(entry)} {percent} (in {entry.images})"


class TotalsSum:
    """Sum image summaries. Memory grows with the number of classes, not of images."""

    def __init__(self, classes: Sequence[LabelClass]) -> None:
        self._classes = classes
        self._images = self._pixels = self._background = self._ignored = 0
        self._of_class = [[0, 0] for _ in classes]

    def add(self, summary: Mapping[str, object]) -> None:
        """Add a `label_summary`."""
        numbers = read_summary(summary)
        self._images += 1
        self._pixels += numbers.size[0] * numbers.size[1]
        self._background += numbers.background
        self._ignored += numbers.ignored
        for each in numbers.classes:
            if 1 <= each.id <= len(self._classes) and each.pixels > 0:
                self._of_class[each.id - 1][0] += 1
                self._of_class[each.id - 1][1] += each.pixels

    def result(self) -> Totals:
        counts = zip(self._classes, self._of_class, strict=True)
        classes = tuple(ClassTotal(each.id, each.name, *own) for each, own in counts)
        return Totals(self._images, self._pixels, self._background, self._ignored, classes)


def total(summaries: Iterable[Mapping[str, object]], classes: Sequence[LabelClass]) -> Totals:
    """Sum image summaries, see `TotalsSum`."""
    found = TotalsSum(classes)
    for each in summaries:
        found.add(each)
    return found.result()


def _short(entry: ClassTotal) -> str:
    name = one_line(entry.name) or f"class {entry.id}"
    name = name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."
    return f'"{name}"' if "," in name else name
