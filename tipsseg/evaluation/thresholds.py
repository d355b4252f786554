"""Choose minimum confidences from images with truth: the lowest by which a class is as precise as asked, with few images too.

Pixels of one image are right and wrong together, so images are counted: of each image the pixels of a class that are right, and
those that are labelled as the class, at every threshold. Their ratio over all images is the precision. It is as high as asked if
the mean of

    right pixels - precision asked * labelled pixels

over images is at least 0. Student's one-sided bound on that mean tells: one image that is all wrong weighs as much as it has
pixels, and few images that differ give a wide bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tipsseg.types import ConfidenceArray, LabelArray

#: Thresholds are 0, 1 / STEPS, ..., 1.
STEPS = 200

#: The level of Student's bound. By tests/benchmarks/tune.py 0.9 costs three points of recall, and 0.8 half of that, and all classes
#: together are as precise as asked either way.
_LEVEL = 0.8

#: Classes that fewer images are labelled with get the threshold of all classes together.
_FEWEST = 3

_EDGES = (np.arange(STEPS + 1) / STEPS).astype(np.float32)

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The pixels of one image, or the sum over several, that truth counts.

    Attributes:
        labelled: [N, STEPS + 1], how many are labelled as each class with at least each confidence.
        right: [N, STEPS + 1], how many of these are of that class.
        truth: [N], how many there are of each class.
    """

    labelled: Counts
    right: Counts
    truth: Counts


def tally(labels: LabelArray, confidence: ConfidenceArray, truth: NDArray[np.integer], classes: int) -> Tally:
    """Count the pixels of an image.

    Args:
        labels: [H, W], as labelled without any minimum confidence.
        confidence: [H, W], of the labels, 0..1.
        truth: [H, W], 0 the background, 1..N the classes; pixels of other ids do not count.
        classes: N.
    """
    counts = truth <= classes
    given, meant = labels[counts].astype(np.int64), truth[counts].astype(np.int64)
    step = np.searchsorted(_EDGES, confidence[counts].astype(np.float32), side="right") - 1
    cell = given * (STEPS + 1) + np.maximum(step, 0)

    def from_above(chosen: NDArray[np.bool_]) -> Counts:
        found = np.bincount(cell[chosen], minlength=(classes + 1) * (STEPS + 1))[: (classes + 1) * (STEPS + 1)]
        found = found.reshape(classes + 1, STEPS + 1)[1:]
        return np.cumsum(found[:, ::-1], axis=1)[:, ::-1]

    return Tally(
        from_above(given <= classes),
        from_above(given == meant),
        np.bincount(meant, minlength=classes + 1)[1:],
    )


@dataclass(frozen=True, slots=True)
class ClassThreshold:
    """The minimum confidence of a class, and its precision and recall in images that it was not chosen by.

    Attributes:
        min_confidence: 0..1.
        images: How many images have pixels that are labelled as the class.
        reached: Whether the precision asked for is reached. If not, the minimum confidence is 1.
        own: Whether it is the class's own; False: too few images have it, and it is that of all classes together.
        precision: With the threshold that each image gets from the other images; None where nothing is left to be labelled.
        recall: Likewise; None where the truth has no pixel of the class.
        recall_before: The recall without a threshold.
        precision_before: The precision without a threshold.
    """

    min_confidence: float
    images: int
    reached: bool
    own: bool
    precision: float | None
    recall: float | None
    precision_before: float | None
    recall_before: float | None


def choose_thresholds(tallies: Sequence[Tally], precision: float) -> tuple[ClassThreshold, ...]:
    """Choose the minimum confidence of each class 1..N, for a precision of 0..1.

    Of two images and more the numbers are with one left out; of one image there are none.
    """
    labelled = np.stack([tally.labelled for tally in tallies])  # [I, N, K]
    right = np.stack([tally.right for tally in tallies])
    truth = np.stack([tally.truth for tally in tallies])  # [I, N]
    own, found = _chosen(labelled, right, precision)
    reached, steps = found[0] >= 0, np.where(found >= 0, found, STEPS)
    image, number = np.ogrid[: len(tallies), : labelled.shape[1]]
    kept, hit = (counts[image, number, steps[1:]].sum(0) for counts in (labelled, right))
    several = len(tallies) > 1
    return tuple(
        ClassThreshold(
            min_confidence=int(steps[0, entry]) / STEPS,
            images=int((labelled[:, entry, 0] > 0).sum()),
            reached=bool(reached[entry]),
            own=bool(own[0, entry]),
            precision=_share(hit[entry], kept[entry]) if several else None,
            recall=_share(hit[entry], truth[:, entry].sum()) if several else None,
            precision_before=_share(right[:, entry, 0].sum(), labelled[:, entry, 0].sum()),
            recall_before=_share(right[:, entry, 0].sum(), truth[:, entry].sum()),
        )
        for entry in range(labelled.shape[1])
    )


def _share(part: int, whole: int) -> float | None:
    return None if not whole else float(part / whole)


def _chosen(labelled: Counts, right: Counts, precision: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether the step of each class is its own, and that step, or -1 where none is precise enough.

    Both are [1 + I, N]: of all images, and then of all but one, for each.
    """
    there = (labelled[..., 0] > 0).astype(np.int64)
    own = np.vstack([there.sum(0), there.sum(0) - there]) >= _FEWEST
    quantiles = [0.0, 0.0, *(student_quantile(_LEVEL, images - 1) for images in range(2, len(labelled) + 1))]
    widths = np.array(quantiles)
    together = _first(labelled.sum(1), right.sum(1), precision, widths)
    alone = [_first(labelled[:, number], right[:, number], precision, widths) for number in range(labelled.shape[1])]
    return own, np.where(own, np.stack(alone, axis=1), together[:, None])


def _first(labelled: Counts, right: Counts, precision: float, widths: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the lowest step by which [I, K] pixels are precise enough, or -1: of all images, and then of all but one; [1 + I].

    `widths` are the quantiles of Student's distribution by the number of images.
    """
    there = labelled > 0
    surplus = right - precision * labelled
    mean = surplus.sum(0) / np.maximum(there.sum(0), 1)
    apart = np.where(there, surplus - mean, 0)
    squares = apart**2
    # Without an image the mean of the others moves away from it, and their squares are about that mean.
    images = np.vstack([there.sum(0), there.sum(0) - there])  # [1 + I, K]
    moved = np.vstack([np.zeros(len(mean)), -apart]) / np.maximum(images, 1)
    total = np.vstack([squares.sum(0), squares.sum(0) - squares]) - images * moved**2
    variance = np.maximum(total, 0) / np.maximum(images - 1, 1)
    margin = mean + moved - widths[images] * np.sqrt(variance / np.maximum(images, 1))
    enough = (images >= 2) & (margin >= 0)
    return np.where(enough.any(1), enough.argmax(1), -1)


def student_quantile(level: float, freedom: int) -> float:
    """Return the quantile of Student's distribution: exact for 1 and 2 degrees, else to 0.01 for levels below 0.95."""
    if freedom == 1:
        return math.tan(math.pi * (level - 0.5))
    if freedom == 2:
        twice = 2 * level - 1
        return twice * math.sqrt(2 / (1 - twice**2))
    z = NormalDist().inv_cdf(level)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
