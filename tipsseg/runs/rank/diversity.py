"""Order images by expected error, discounted by similarity to earlier images.

The order is greedy. The worth of an image is its expected error, discounted by its similarity to the most similar image already
chosen, and raised if it shows a class that no chosen image shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tipsseg.runs.rank.likeness import Vectors

#: The number of images to choose one by one. All later images are ordered by error alone.
CHOSEN = 1000

#: The discount at similarity 1, and the exponent with which it decreases for lower similarities.
_REPEATED, _STEEP = 0.9, 4

#: The bonus of an image with a class that no image before it shows.
_NEW_CLASS = 0.25

#: The quantile of pairwise similarities that counts as similarity 0, because typical similarities depend on the folder.
_BASELINE_QUANTILE, _MOST_BASELINE = 0.9, 0.98
_SAMPLE = 500


def diverse_order(errors: Sequence[float], vectors: Vectors, classes: Sequence[Sequence[int]]) -> list[int]:
    """Return the indices of all images in review order.

    Args:
        errors: The expected error of each image. Of equally good images, the first comes first.
        vectors: [n, d], the image vectors, see `likeness`.
        classes: The class ids in each image.
    """
    worth = np.array(errors, np.float64)
    similarity, baseline = np.zeros(len(worth), np.float32), baseline_similarity(vectors)
    unseen = _Unseen(classes)
    remaining = np.ones(len(worth), np.bool_)
    order: list[int] = []
    for _ in range(min(len(worth), CHOSEN)):
        gain = worth * (1 - _REPEATED * similarity**_STEEP) * np.where(unseen.numbers > 0, 1 + _NEW_CLASS, 1)
        chosen = int(np.where(remaining, gain.round(6), -1).argmax())
        order.append(chosen)
        remaining[chosen] = False
        unseen.remove(chosen)
        np.maximum(similarity, _rescale(vectors @ vectors[chosen], baseline), out=similarity)
    rest = np.flatnonzero(remaining)
    return order + rest[np.argsort(-worth[rest], kind="stable")].tolist()


def baseline_similarity(vectors: Vectors) -> float:
    """Return the similarity of image pairs, 0..1, that counts as 0: most pairs are less similar."""
    known = vectors[vectors.any(1)]
    sample = known[:: max(1, len(known) // _SAMPLE)]
    pairs = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return min(max(0.0, float(np.quantile(pairs, _BASELINE_QUANTILE))), _MOST_BASELINE) if len(pairs) else 0.0


def _rescale(products: Vectors, baseline: float) -> Vectors:
    return np.clip((products.round(4) - baseline) / (1 - baseline), 0, 1)


class _Unseen:
    """The classes that no chosen image shows."""

    def __init__(self, classes: Sequence[Sequence[int]]) -> None:
        self._classes = classes
        self._images: dict[int, list[int]] = defaultdict(list)
        for image, shown in enumerate(classes):
            for label in shown:
                self._images[label].append(image)
        #: The number of unseen classes in each image.
        self.numbers: NDArray[np.int64] = np.array([len(shown) for shown in classes], np.int64)

    def remove(self, image: int) -> None:
        for label in self._classes[image]:
            self.numbers[self._images.pop(label, [])] -= 1
