"""Measure how alike images are, by a short vector of each, from the class tokens of its features or from its labels.

Vectors have unit length: the product of two is the likeness of the images, 1 for images that are alike in all. A vector of zeros
stands for an image of which nothing is known: it is like no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tipsseg.store.manifest import ObjectScore
from tipsseg.store.summary import ImageNumbers
from tipsseg.types import BACKGROUND

Vectors = NDArray[np.float32]
Shares = NDArray[np.float64]

#: Longer vectors are projected at random, always in the same way: products stay what they are, but for a tenth or so.
LENGTH = 128

#: The grid of places, and the number that stands for ignored pixels.
_GRID = 3
_PLACES = _GRID**2
_IGNORED = -1

#: How many images are compared with all at once.
_AT_ONCE = 256


def token_vector(class_tokens: NDArray[np.floating]) -> Vectors:
    """Return the vector [d] of class tokens [B, C, D] of an image: of each of the C the mean over the windows."""
    means = class_tokens.astype(np.float32).mean(0)  # [C, D]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
    return _projected(_unit(means.reshape(1, -1)))[0]


def label_shares(numbers: ImageNumbers, objects: Iterable[ObjectScore]) -> Shares:
    """Return the labels of an image and where they are, [k, 2]: each row a label at a place, as one number, and its share.

    The places of objects are those of their middles in a grid of 3 x 3. Background and ignored pixels have one place each.
    """
    height, width = numbers.size
    pixels: dict[int, int] = defaultdict(int)
    rest = {entry.id: entry.pixels for entry in numbers.classes}
    for label, area, y, x, h, w, _ in objects:
        row, column = (
            min(_GRID - 1, _GRID * (2 * at + side) // (2 * size)) for at, side, size in ((y, h, height), (x, w, width))
        )
        pixels[_PLACES * label + _GRID * row + column] += area
        rest[label] = rest.get(label, 0) - area
    for label, area in rest.items():  # an earlier version kept no objects
        pixels[_PLACES * label + _PLACES // 2] += max(area, 0)
    pixels[_PLACES * BACKGROUND] += numbers.background
    pixels[_IGNORED] += numbers.ignored
    return np.array([(key, count / (height * width)) for key, count in sorted(pixels.items()) if count]).reshape(-1, 2)


def label_vectors(shares: Sequence[Shares]) -> Vectors:
    """Return the vectors [n, d] of images from their `label_shares`. What few images show counts more."""
    ids = np.unique(np.concatenate([np.zeros(0), *(held[:, 0] for held in shares)]))
    images = np.zeros(len(ids), np.float32)
    for held in shares:
        images[np.searchsorted(ids, held[:, 0])] += 1
    weights = np.log1p(len(shares) / np.maximum(images, 1)).astype(np.float32)
    found = []
    for held in shares:
        places = np.searchsorted(ids, held[:, 0])
        vector = np.zeros((1, len(ids)), np.float32)
        vector[0, places] = np.sqrt(held[:, 1]) * weights[places]
        found.append(_projected(_unit(vector))[0])
    return np.stack(found) if found else np.zeros((0, 1), np.float32)


def nearest(vectors: Vectors, number: int) -> Iterator[list[int]]:
    """Yield for each image the images that are most like it, the nearest first; images without a vector have none."""
    known: NDArray[np.bool_] = np.asarray(vectors.any(1))
    for start in range(0, len(vectors), _AT_ONCE):
        likeness = vectors[start : start + _AT_ONCE] @ vectors.T  # [b, n]
        likeness[:, ~known] = -np.inf
        likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -np.inf
        for place, row in enumerate(likeness.round(5), start):
            best = np.argsort(-row, kind="stable")[:number].tolist()
            yield [other for other in best if known[place] and np.isfinite(row[other])]


def _unit(vectors: Vectors) -> Vectors:
    """Scale vectors [n, d] to unit length; those of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _projected(vectors: Vectors) -> Vectors:
    length = vectors.shape[1]
    return vectors if length <= LENGTH else _unit(vectors @ _projection(length))


@cache
def _projection(length: int) -> Vectors:
    return np.random.default_rng(length).standard_normal((length, LENGTH)).astype(np.float32)
