"""Order images by their expected error, discounted by their likeness to images before them.

Image after image is taken. The worth of an image is its error. It is less, the more the image is like one that was taken, and more
while the image shows a class that none that was taken shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tipsseg.runs.rank.likeness import Vectors

#: So many images are chosen one by one; whoever reviews more than these takes the others by their errors alone.
CHOSEN = 1000

#: How much less an image is worth that is like one before it in all; and how much sooner than likeness itself that ends.
_REPEATED, _STEEP = 0.9, 4

#: How much more an image is worth that shows a class that no image before it shows.
_NEW_CLASS = 0.25

#: The likeness that so many pairs of images stay below counts as none: how alike any images are depends on the folder.
_ORDINARY, _MOST_ORDINARY = 0.9, 0.98
_SAMPLE = 500


def diverse_order(errors: Sequence[float], vectors: Vectors, classes: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of all images, those first that are to be reviewed first.

    Args:
        errors: The expected error of each image, in an order that decides between images that are worth the same.
        vectors: [n, d] of the images, see `likeness`.
        classes: The ids of the classes that each image shows.
    """
    worth = np.array(errors, np.float64)
    likeness, ordinary = np.zeros(len(worth), np.float32), ordinary_likeness(vectors)
    unseen = _Unseen(classes)
    left = np.ones(len(worth), np.bool_)
    order: list[int] = []
    for _ in range(min(len(worth), CHOSEN)):
        gain = worth * (1 - _REPEATED * likeness**_STEEP) * np.where(unseen.numbers > 0, 1 + _NEW_CLASS, 1)
        chosen = int(np.where(left, gain.round(6), -1).argmax())
        order.append(chosen)
        left[chosen] = False
        unseen.see(chosen)
        np.maximum(likeness, _above(vectors @ vectors[chosen], ordinary), out=likeness)
    rest = np.flatnonzero(left)
    return order + rest[np.argsort(-worth[rest], kind="stable")].tolist()


def ordinary_likeness(vectors: Vectors) -> float:
    """Return the likeness that counts as none, 0..1: most pairs of images are less alike."""
    known = vectors[vectors.any(1)]
    some = known[:: max(1, len(known) // _SAMPLE)]
    pairs = (some @ some.T)[np.triu_indices(len(some), 1)]
    return min(max(0.0, float(np.quantile(pairs, _ORDINARY))), _MOST_ORDINARY) if len(pairs) else 0.0


def _above(products: Vectors, ordinary: float) -> Vectors:
    return np.clip((products.round(4) - ordinary) / (1 - ordinary), 0, 1)


class _Unseen:
    """The classes that no image taken so far shows."""

    def __init__(self, classes: Sequence[Sequence[int]]) -> None:
        self._classes = classes
        self._images: dict[int, list[int]] = defaultdict(list)
        for image, shown in enumerate(classes):
            for label in shown:
                self._images[label].append(image)
        #: How many such classes each image shows.
        self.numbers: NDArray[np.int64] = np.array([len(shown) for shown in classes], np.int64)

    def see(self, image: int) -> None:
        for label in self._classes[image]:
            self.numbers[self._images.pop(label, [])] -= 1
