"""What the evaluation is made on, and how labels are scored: seeds and sizes of its scenes, truths by a list of classes, IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinytips.world.concepts import leaf_ids

#: The first seed of the scenes that are scored, apart from the seeds of training.
FIRST_SEED = 30_000_000
#: (height, width) of the scenes, in pixels, one after the other.
SIZES = ((448, 600), (480, 640), (600, 450), (400, 400), (360, 640), (720, 560), (300, 420))
#: Patches along the short side of the embedded model's window.
GRID = 16

#: [H, W] class ids.
Labels = NDArray[np.uint8]


def to_list(truth: Labels, classes: Sequence[str]) -> Labels:
    """Leaf ids -> 1..N in the order of `classes`, 0 for what none of them covers."""
    table = np.zeros(256, np.uint8)
    for number, name in enumerate(classes, start=1):
        table[list(leaf_ids(name))] = number
    return table[truth]


def grid_best(truth: Labels, cells: int = GRID) -> Labels:
    """Each cell of a grid, with so many along the short side, gets the label that most of its pixels have."""
    height, width = truth.shape
    short = min(height, width)
    rows, columns = round(cells * height / short), round(cells * width / short)
    cell = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    votes = np.zeros((rows * columns, int(truth.max()) + 1), np.int64)
    np.add.at(votes, (cell, truth), 1)
    return votes.argmax(1).astype(np.uint8)[cell]


def iou(truths: Sequence[Labels], guesses: Sequence[Labels], classes: int) -> NDArray[np.float64]:
    """IoU of labels 0..classes from one confusion matrix over all pixels; NaN where a label does not occur."""
    size = classes + 1
    confusion = np.zeros((size, size), np.int64)
    for truth, guess in zip(truths, guesses, strict=True):
        pairs = truth.astype(np.int64) * size + guess
        confusion += np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return np.diag(confusion) / union
