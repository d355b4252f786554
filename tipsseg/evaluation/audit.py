"""Compare existing labels of an image with the labels of a model, region by region.

A region of the existing labels is doubtful if the model sees another class in it, or the background. What the model sees on
unlabelled pixels is doubtful if it is as wide as a patch; what is thinner is the blurred edge of something labelled.

Pixels near the edge of a region count less, because labels come from patches: a pixel counts by its distance from the edge, up to
half a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import Region, components
from tipsseg.regions.naming import PART_RADIUS
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray

#: "class": the model sees another class; "nothing": it sees the background; "unlabelled": it sees a class without a label.
Kind = Literal["class", "nothing", "unlabelled"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Doubt:
    """A region and how much the model doubts its label.

    Attributes:
        kind: The kind of the doubt.
        label: The existing label id; 0 without a label.
        seen: The label id that the model sees; 0 for the background.
        score: -1..1. Of a labelled region, the mean confidence of what the model sees less that of the label, times a factor for
            regions smaller than a patch; the model agrees below 0. Of an unlabelled thing, its mean confidence.
        region: The pixels.
    """

    kind: Kind
    label: int
    seen: int
    score: float
    region: Region


def find_doubts(
    labels: LabelArray,
    confidence: ConfidenceArray,
    given: LabelArray,
    instances: NDArray[np.int32],
    *,
    classes: int,
    patch: float,
) -> list[Doubt]:
    """Return all labelled regions of an image and the things without a label, each with its doubt.

    Args:
        labels: [H, W], the labels of the model.
        confidence: [H, W], 0..1, their confidence.
        given: [H, W], the existing labels; 0 without a label.
        instances: [H, W], the objects of the existing labels; 0 for pixels whose objects are components.
        classes: The number of classes.
        patch: The side of a patch in pixels of the image.
    """
    doubts = [
        _doubt(region, labels, confidence, classes, patch) for region in components(given, classes, instances=instances)
    ]
    free = labels.copy()
    free[given != BACKGROUND] = BACKGROUND
    for region in components(free, classes):
        if _radius(region.mask) >= PART_RADIUS * patch:
            y, x, h, w = region.box
            score = float(confidence[y : y + h, x : x + w][region.mask].mean())
            doubts.append(Doubt(kind="unlabelled", label=BACKGROUND, seen=region.class_id, score=score, region=region))
    return doubts


def _doubt(region: Region, labels: LabelArray, confidence: ConfidenceArray, classes: int, patch: float) -> Doubt:
    y, x, h, w = region.box
    mask, place = region.mask, (slice(y, y + h), slice(x, x + w))
    distance = _distances(mask)
    weights = np.minimum(distance, patch / 2) * confidence[place]
    inside = mask & (labels[place] <= classes)  # without ignored pixels
    sums = np.bincount(labels[place][inside], weights[inside], classes + 1)
    own = float(sums[region.class_id])
    sums[region.class_id] = -1
    seen = int(sums.argmax())
    whole = float(np.minimum(distance, patch / 2)[mask].sum())
    trust = min(1.0, float(distance.max()) / (PART_RADIUS * patch))
    score = (float(sums[seen]) - own) / whole * trust
    return Doubt(
        kind="nothing" if seen == BACKGROUND else "class",
        label=region.class_id,
        seen=seen,
        score=score,
        region=region,
    )


def _radius(mask: NDArray[np.bool_]) -> float:
    return float(_distances(mask).max())


def _distances(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the distance of the pixels of a mask from its edge, [h, w]; the border of the box is an edge."""
    padded = np.pad(mask.view(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)[1:-1, 1:-1].astype(np.float32, copy=False)
