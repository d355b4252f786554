"""Score labels against ground truth: build a confusion matrix, compute scores, and format them as JSON and as a table.

The scores follow semantic segmentation benchmarks: IoU as in Pascal VOC (Everingham et al., IJCV 2010), mean IoU and the
accuracies as in Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015. A single matrix counts the
pixels of all images; scores are not averaged over images. A whole is scored by its pixels and its parts' pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import InputError, UsageError
from tipsseg.regions.objects import ancestors, split_levels
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, ignore_id
from tipsseg.util.text import one_line, text_table

#: Maximum number of scored classes. The matrix grows with its square: 3,000 classes take 72 MB.
MAX_SCORED_CLASSES = 3000

#: Confidences for which `Kept` has the precision and the share of the labels.
CONFIDENCES = (0.5, 0.7, 0.9, 0.95)

#: Names of the background row, and of the column of pixels without a scored label.
BACKGROUND_NAME = "background"
NO_LABEL_NAME = "no label"

_LEFT_OUT = -1
_PIECE = 1 << 20


class Confusion:
    """Pixel counts by ground truth and label.

    Attributes:
        counts: [R, R + 1] int64. One row per true class: background, if it is scored, then 1..N. One column per predicted class in
            the same order, and a last column of pixels without a scored label: those below the minimum confidence, and background
            if it is not scored.
        truth: [R] int64, the pixels of each true class.
        classes: N.
        background: True if background is scored: R = N + 1, else R = N.
    """

    def __init__(self, classes: int, background: bool) -> None:
        """Create a matrix of zeros. Raise UsageError for more than MAX_SCORED_CLASSES classes."""
        if classes > MAX_SCORED_CLASSES:
            raise UsageError(
                f"{classes} classes cannot be scored: the limit is {MAX_SCORED_CLASSES}",
                "Evaluate with the classes that occur in the ground truth.",
            )
        self.classes = classes
        self.background = background
        first = 0 if background else 1
        rows = classes + 1 - first
        self.counts: NDArray[np.int64] = np.zeros((rows, rows + 1), np.int64)
        self.truth: NDArray[np.int64] = np.zeros(rows, np.int64)
        self._row = np.full(65536, _LEFT_OUT, np.int64)
        self._row[first : classes + 1] = np.arange(rows)
        self._column = self._row.copy()
        self._column[ignore_id(classes)] = rows
        if not background:
            self._column[BACKGROUND] = rows

    @property
    def ids(self) -> tuple[int, ...]:
        """Label id of each row."""
        return tuple(range(0 if self.background else 1, self.classes + 1))

    def add(self, truth: NDArray[np.uint16], labels: LabelArray) -> tuple[int, int]:
        """Add the pixels of one image.

        Args:
            truth: [H, W] uint16, scored label ids, or IGNORED.
            labels: [H, W] uint8 or uint16, 0, 1..N and the ignore id.

        Returns:
            The number of pixels whose ground truth is not ignored, and the number of these with the correct label.

        Raises:
            InputError: The sizes differ.
        """
        if truth.shape != labels.shape:
            raise InputError(
                f"the labels are {_size(labels)} (height x width), but the ground truth is {_size(truth)}",
                "The ground truth must have the size of the upright image.",
            )
        image_counts = self._count(truth.reshape(-1), labels.reshape(-1))
        pixels = image_counts.sum(1)  # [R]
        self.counts += image_counts
        self.truth += pixels
        return int(pixels.sum()), int(np.trace(image_counts))

    def _count(self, truth: NDArray[np.uint16], labels: LabelArray) -> NDArray[np.int64]:
        """Count pixels by ground truth [n] and label [n]: [R, R + 1]."""
        added = np.zeros(self.counts.size, np.int64)
        # Count in pieces, because several arrays of indices take 8 bytes per pixel each.
        for start in range(0, truth.size, _PIECE):
            row = self._row[truth[start : start + _PIECE]]
            column = self._column[labels[start : start + _PIECE]]
            cell = row * self.counts.shape[1] + column
            added += np.bincount(cell[row != _LEFT_OUT], minlength=self.counts.size)
        return added.reshape(self.counts.shape)


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Score of one image.

    Attributes:
        image: Name of the image or its mask.
        pixels: Number of pixels whose ground truth is not ignored.
        right: Number of these with the correct label.
    """

    image: str
    pixels: int
    right: int


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of a confusion matrix, 0..1; NaN if the divisor is zero.

    For each class, t is its number of true pixels, p its number of predicted pixels, and c its number of correct pixels. Pixels
    with ignored ground truth are excluded.

    A pixel of a part counts for its wholes too.

    Attributes:
        ids: [R] label id of each scored class.
        names: [R] name of each scored class.
        iou: [R] float64, c / (t + p - c).
        precision: [R] float64, c / p ("user's accuracy").
        recall: [R] float64, c / t (class accuracy, "producer's accuracy").
        truth_pixels: [R] int64, t.
        mean_iou: Mean of `iou` over the classes that occur in ground truth or prediction.
        mean_iou_wholes: The same over the classes that are not parts; NaN if no class is a part.
        mean_iou_parts: The same over the parts.
        pixel_accuracy: The share of the `counted` pixels whose label equals the ground truth.
        mean_accuracy: Mean of `recall` over the classes that occur in the ground truth.
        counted: Number of pixels whose ground truth is not ignored.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    truth_pixels: NDArray[np.int64]
    mean_iou: float
    mean_iou_wholes: float
    mean_iou_parts: float
    pixel_accuracy: float
    mean_accuracy: float
    counted: int


def scores(confusion: Confusion, classes: Sequence[LabelClass]) -> Scores:
    """Compute the scores of a confusion matrix. `classes` are those with the label ids 1..N."""
    counts = confusion.counts
    same, truth, predicted = np.diagonal(counts), confusion.truth, counts[:, :-1].sum(0)  # [R]
    counted, right = int(truth.sum()), int(same.sum())
    correct, truth, predicted = same.copy(), truth.copy(), predicted.copy()
    for row, rows in _families(confusion, classes).items():
        correct[row] = counts[np.ix_(rows, rows)].sum()
        truth[row], predicted[row] = confusion.truth[rows].sum(), counts[:, rows].sum()
    iou = _shares(correct, truth + predicted - correct)
    recall = _shares(correct, truth)
    parts = np.array([number > 0 and classes[number - 1].part_of > 0 for number in confusion.ids], np.bool_)
    return Scores(
        ids=confusion.ids,
        names=((BACKGROUND_NAME,) if confusion.background else ()) + tuple(entry.name for entry in classes),
        iou=iou,
        precision=_shares(correct, predicted),
        recall=recall,
        truth_pixels=truth,
        mean_iou=_mean(iou),
        mean_iou_wholes=_mean(iou[~parts]) if parts.any() else math.nan,
        mean_iou_parts=_mean(iou[parts]),
        pixel_accuracy=right / counted if counted else math.nan,
        mean_accuracy=_mean(recall),
        counted=counted,
    )


def _families(confusion: Confusion, classes: Sequence[LabelClass]) -> dict[int, list[int]]:
    """Return the row of each whole, with the rows of the whole and its parts."""
    first = 0 if confusion.background else 1
    families: dict[int, list[int]] = {}
    for number, chain in enumerate(ancestors(classes), start=1):
        for whole in chain[:-1]:
            families.setdefault(whole - first, [whole - first]).append(number - first)
    return families


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The precision of the labels with at least some confidence, and their share; NaN if the divisor is zero.

    A pixel of a part counts for its wholes too, with its own confidence. T is the number of `CONFIDENCES`. Images that a person
    corrected are left out. Stored confidences have steps of 1/255.

    Attributes:
        images: Number of images with stored confidences.
        ids: [R] label id of each scored class.
        names: [R + 1] name of each scored class, then "all labels".
        precision: [R + 1, T] float64, the share of the kept pixels whose ground truth is the class; without ignored ground truth.
        share: [R + 1, T] float64, the kept pixels by all pixels with the label.
    """

    images: int
    ids: tuple[int, ...]
    names: tuple[str, ...]
    precision: NDArray[np.float64]
    share: NDArray[np.float64]

    def record(self) -> dict[str, object]:
        """Return the numbers as JSON values, with None for NaN."""
        shares = [
            {"precision": [*map(rounded, precision)], "kept": [*map(rounded, share)]}
            for precision, share in zip(self.precision, self.share, strict=True)
        ]
        named = zip(self.ids, self.names, shares, strict=False)
        return {
            "images": self.images,
            "at_least": CONFIDENCES,
            "classes": [{"id": number, "name": name, **values} for number, name, values in named],
            "all": shares[-1],
        }

    def table(self) -> str:
        """Format the numbers in percent as a text table, with "-" for NaN."""
        heads = ["precision in % at", *(head for least in CONFIDENCES for head in (f"{least:g}", "kept"))]
        shares = np.stack([self.precision, self.share], axis=2).reshape(len(self.names), -1)
        rows = [[one_line(name), *map(percent, values)] for name, values in zip(self.names, shares, strict=True)]
        return text_table(heads, rows)


def count_kept(
    truth: NDArray[np.uint16],
    labels: LabelArray,
    confidence: NDArray[np.float32],
    classes: Sequence[LabelClass],
    first: int,
) -> NDArray[np.int64]:
    """Count the pixels [H, W] of an image by label and confidence, for `kept`; `first` is the least scored label id.

    Returns:
        [3, N + 2, T + 1]: all pixels with the label, those with ground truth, and those that are right. Rows are label ids, then
        all scored labels. The last axis is the number of `CONFIDENCES` that a pixel reaches.
    """
    every, bins = len(classes) + 1, len(CONFIDENCES) + 1
    found = np.zeros((3, (every + 1) * bins), np.int64)
    for start in range(0, labels.size, _PIECE):
        piece = slice(start, start + _PIECE)
        own, true = labels.reshape(-1)[piece], truth.reshape(-1)[piece]
        reached = np.searchsorted(CONFIDENCES, confidence.reshape(-1)[piece], side="right")
        levels: list[tuple[NDArray[Any], NDArray[Any]]] = [
            *zip(split_levels(own, classes), split_levels(true, classes), strict=True),
            (np.where((first <= own) & (own < every), every, BACKGROUND), np.where(own == true, every, BACKGROUND)),
        ]
        for depth, (label, wanted) in enumerate(levels):
            labelled = label > BACKGROUND if depth else label < every
            cell = label.astype(np.int64) * bins + reached
            for number, chosen in enumerate((True, true < every, label == wanted)):
                found[number] += np.bincount(cell[labelled & chosen], minlength=found.shape[1])
    return found.reshape(3, -1, bins)


def kept(counts: NDArray[np.int64], images: int, result: Scores) -> Kept:
    """Compute the precision and the share of the labels by confidence, from the sum of `count_kept` over `images`."""
    rows = counts[:, result.ids[0] :]  # [3, R + 1, T + 1]
    reached = rows[..., ::-1].cumsum(-1)[..., ::-1]
    labelled, known, right = reached[..., 1:]
    share = _shares(labelled, np.broadcast_to(reached[0, :, :1], labelled.shape))
    return Kept(images, result.ids, (*result.names, "all labels"), _shares(right, known), share)


def find_swapped_classes(confusion: Confusion, classes: Sequence[LabelClass]) -> list[tuple[int, int]]:
    """Detect whether ground truth and predictions number the classes in different orders.

    A class is suspicious if more than half of its pixels are predicted as one other class. The orders differ if these other
    classes number at least two, and at least half as many as the classes in the ground truth. (A poor model predicts the same other
    class for many classes.) Ignore background, and do not compare a whole with its parts.

    Returns:
        (row, column) of each suspicious class and its other class; empty if the order seems right.
    """
    first = 1 if confusion.background else 0
    counts = confusion.counts[first:, first:-1].copy()  # [N, N]
    for chain in ancestors(classes):
        part = chain[-1] - 1
        for whole in (each - 1 for each in chain[:-1]):
            counts[part, part] += counts[part, whole]
            counts[whole, whole] += counts[whole, part]
            counts[part, whole] = counts[whole, part] = 0
    total = confusion.counts[first:].sum(1)
    best = counts.argmax(1)
    rows = np.flatnonzero((best != np.arange(len(best))) & (2 * counts.max(1) > total))
    others = len(np.unique(best[rows]))
    if others < 2 or 2 * others < (total > 0).sum():
        return []
    return [(first + int(row), first + int(best[row])) for row in rows]


def record(result: Scores) -> dict[str, object]:
    """Return the scores as JSON values, with None for NaN."""
    return {
        "mean_iou": rounded(result.mean_iou),
        **(
            {}
            if math.isnan(result.mean_iou_wholes)
            else {
                "mean_iou_wholes": rounded(result.mean_iou_wholes),
                "mean_iou_parts": rounded(result.mean_iou_parts),
            }
        ),
        "pixel_accuracy": rounded(result.pixel_accuracy),
        "mean_accuracy": rounded(result.mean_accuracy),
        "pixels": result.counted,
        "classes": [
            {
                "id": result.ids[row],
                "name": result.names[row],
                "iou": rounded(result.iou[row]),
                "precision": rounded(result.precision[row]),
                "recall": rounded(result.recall[row]),
                "pixels": int(result.truth_pixels[row]),
            }
            for row in range(len(result.ids))
        ],
    }


def table(result: Scores) -> str:
    """Format the scores in percent as a text table: one line per class, then the means, with "-" for NaN."""
    share = result.truth_pixels / max(result.counted, 1)
    rows = [
        [one_line(name) or f"class {number}", *map(percent, (iou, precision, recall, part or math.nan))]
        for number, name, iou, precision, recall, part in zip(
            result.ids, result.names, result.iou, result.precision, result.recall, share, strict=True
        )
    ]
    occurring = int((~np.isnan(result.iou)).sum())
    return (
        text_table(["in %", "IoU", "precision", "recall", "share"], rows)
        + f"\nmean IoU             {percent(result.mean_iou):>6}"
        + f"   over the {occurring} of {len(rows)} that occur in ground truth or labels\n"
        + (
            ""
            if math.isnan(result.mean_iou_wholes)
            else f"  of wholes          {percent(result.mean_iou_wholes):>6}\n"
            f"  of parts           {percent(result.mean_iou_parts):>6}\n"
        )
        + f"mean class accuracy  {percent(result.mean_accuracy):>6}\n"
        + f"pixel accuracy       {percent(result.pixel_accuracy):>6}   of {result.counted:,} pixels\n"
    )


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)].tolist()
    return math.fsum(defined) / len(defined) if defined else math.nan


def rounded(value: float | None) -> float | None:
    """Return a share as a JSON value: None if it is unknown, as None or NaN."""
    return None if value is None or math.isnan(value) else round(float(value), 6)


def percent(value: float | None) -> str:
    """Return a share in per cent; "-" if it is unknown, as None or NaN."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def _size(array: NDArray[np.generic]) -> str:
    return " x ".join(str(length) for length in array.shape)
