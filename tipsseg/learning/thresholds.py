"""Choose minimum confidences from images with ground truth: for each class the lowest that reaches a target precision.

Errors within an image are correlated, so the statistics are over images. For every threshold and image, count the pixels
labelled as the class, and how many of them are right. Precision is the ratio of the sums, so it reaches the target if the
mean over images of

    right pixels - target * labelled pixels

is at least 0. The test is Student's one-sided lower bound on that mean: images count in proportion to their pixels, and the
bound is wide for few or diverse images.
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

#: Confidence level of the bound. In tests/benchmarks/tune.py, 0.9 costs three points of recall and 0.8 half of that. Over all
#: classes together, both reach the target.
_LEVEL = 0.8

#: Classes in fewer images get the threshold of all classes together.
_MIN_IMAGES = 3

_EDGES = (np.arange(STEPS + 1) / STEPS).astype(np.float32)

_Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Pixel counts of one image, or sums over several images, without ignored pixels.

    Attributes:
        labelled: [N, STEPS + 1], pixels labelled as each class with at least each confidence.
        right: [N, STEPS + 1], pixels among these whose true class is the same.
        truth: [N], true pixels of each class.
    """

    labelled: _Counts
    right: _Counts
    truth: _Counts


def tally(labels: LabelArray, confidence: ConfidenceArray, truth: NDArray[np.integer], classes: int) -> Tally:
    """Count the pixels of an image.

    Args:
        labels: [H, W], labels without any minimum confidence.
        confidence: [H, W], confidence of the labels, 0..1.
        truth: [H, W], 0 for background, 1..N for the classes; other ids are ignored.
        classes: N.
    """
    counts = truth <= classes
    predicted, true = labels[counts].astype(np.int64), truth[counts].astype(np.int64)
    step = np.searchsorted(_EDGES, confidence[counts].astype(np.float32), side="right") - 1
    cell = predicted * (STEPS + 1) + np.maximum(step, 0)

    def count_from_above(selected: NDArray[np.bool_]) -> _Counts:
        histogram = np.bincount(cell[selected], minlength=(classes + 1) * (STEPS + 1))[: (classes + 1) * (STEPS + 1)]
        histogram = histogram.reshape(classes + 1, STEPS + 1)[1:]
        return np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]

    return Tally(
        count_from_above(predicted <= classes),
        count_from_above(predicted == true),
        np.bincount(true, minlength=classes + 1)[1:],
    )


@dataclass(frozen=True, slots=True)
class ClassThreshold:
    """Minimum confidence of a class, with leave-one-out precision and recall.

    Attributes:
        min_confidence: The threshold, 0..1.
        images: Number of images with pixels labelled as the class.
        reached: True if the target precision is reached. If not, `min_confidence` is 1.
        own: True if the threshold is the class's own; False if it is the threshold of all classes together, because too few images
            have the class.
        precision: Precision with a threshold chosen on the other images; None if no pixel remains labelled.
        recall: Recall with a threshold chosen on the other images; None if the ground truth has no pixel of the class.
        precision_before: Precision without a threshold.
        recall_before: Recall without a threshold.
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
    """Choose the minimum confidence of each class 1..N for a target precision, 0..1.

    Precision and recall need at least two images, because one is left out; they are None for a single image.
    """
    labelled = np.stack([tally.labelled for tally in tallies])  # [I, N, K]
    right = np.stack([tally.right for tally in tallies])
    truth = np.stack([tally.truth for tally in tallies])  # [I, N]
    own, chosen = _choose_steps(labelled, right, precision)
    reached, steps = chosen[0] >= 0, np.where(chosen >= 0, chosen, STEPS)
    image, number = np.ogrid[: len(tallies), : labelled.shape[1]]
    positives, true_positives = (counts[image, number, steps[1:]].sum(0) for counts in (labelled, right))
    several = len(tallies) > 1
    return tuple(
        ClassThreshold(
            min_confidence=int(steps[0, entry]) / STEPS,
            images=int((labelled[:, entry, 0] > 0).sum()),
            reached=bool(reached[entry]),
            own=bool(own[0, entry]),
            precision=_share(true_positives[entry], positives[entry]) if several else None,
            recall=_share(true_positives[entry], truth[:, entry].sum()) if several else None,
            precision_before=_share(right[:, entry, 0].sum(), labelled[:, entry, 0].sum()),
            recall_before=_share(right[:, entry, 0].sum(), truth[:, entry].sum()),
        )
        for entry in range(labelled.shape[1])
    )


def _share(part: int, whole: int) -> float | None:
    return None if not whole else float(part / whole)


def _choose_steps(labelled: _Counts, right: _Counts, precision: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return for each class whether it has its own step, and the step, or -1 if none reaches the target.

    Both are [1 + I, N]: row 0 is for all images, row 1 + i for all images except i.
    """
    occurs = (labelled[..., 0] > 0).astype(np.int64)
    own = np.vstack([occurs.sum(0), occurs.sum(0) - occurs]) >= _MIN_IMAGES
    quantiles = [0.0, 0.0, *(student_quantile(_LEVEL, images - 1) for images in range(2, len(labelled) + 1))]
    widths = np.array(quantiles)
    shared = _lowest_step(labelled.sum(1), right.sum(1), precision, widths)
    single = [
        _lowest_step(labelled[:, number], right[:, number], precision, widths) for number in range(labelled.shape[1])
    ]
    return own, np.where(own, np.stack(single, axis=1), shared[:, None])


def _lowest_step(labelled: _Counts, right: _Counts, precision: float, widths: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the lowest step that reaches the target, or -1: for all images, then for all except each, [1 + I]. _Counts are [I,
    K].

    `widths` are the quantiles of Student's distribution by the number of images.
    """
    occurs = labelled > 0
    surplus = right - precision * labelled
    mean = surplus.sum(0) / np.maximum(occurs.sum(0), 1)
    deviation = np.where(occurs, surplus - mean, 0)
    squares = deviation**2
    # Leaving an image out shifts the mean away from it; the sum of squares is then about the shifted mean.
    images = np.vstack([occurs.sum(0), occurs.sum(0) - occurs])  # [1 + I, K]
    shift = np.vstack([np.zeros(len(mean)), -deviation]) / np.maximum(images, 1)
    total = np.vstack([squares.sum(0), squares.sum(0) - squares]) - images * shift**2
    variance = np.maximum(total, 0) / np.maximum(images - 1, 1)
    margin = mean + shift - widths[images] * np.sqrt(variance / np.maximum(images, 1))
    enough = (images >= 2) & (margin >= 0)
    return np.where(enough.any(1), enough.argmax(1), -1)


def student_quantile(level: float, freedom: int) -> float:
    """Return a quantile of Student's t-distribution.

    It is exact for 1 and 2 degrees of freedom. For more, the error is below 0.01 at levels below 0.95.
    """
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
