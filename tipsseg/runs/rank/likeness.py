"""Compare images by short vectors, computed from class tokens or from labels.

Vectors have unit length, so the dot product of two vectors is the cosine similarity of the images. An image without data has a zero
vector, and similarity 0 to every image.
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

#: Longer vectors are projected to this length by a fixed random matrix, which changes products by about 0.1.
LENGTH = 128

#: The grid for object positions, 3 x 3 cells, and the id of ignored pixels.
_GRID = 3
_CELLS = _GRID**2
_IGNORED = -1

#: The number of images to compare with all images in one matrix product.
_BATCH = 256


def token_vector(class_tokens: NDArray[np.floating]) -> Vectors:
    """Return an image's vector [d] from its class tokens [B, C, D], averaged over the B windows."""
    means = class_tokens.astype(np.float32).mean(0)  # [C, D]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
    return _project(_normalize(means.reshape(1, -1)))[0]


def label_shares(numbers: ImageNumbers, objects: Iterable[ObjectScore]) -> Shares:
    """Return the labels of an image with their positions, [k, 2]: label and grid cell as one number, and their share of pixels.

    An object belongs to the grid cell of its centre. Background and ignored pixels have one cell each.
    """
    height, width = numbers.size
    pixels: dict[int, int] = defaultdict(int)
    rest = {entry.id: entry.pixels for entry in numbers.classes}
    for label, area, y, x, h, w, _ in objects:
        row, column = (
            min(_GRID - 1, _GRID * (2 * at + side) // (2 * size)) for at, side, size in ((y, h, height), (x, w, width))
        )
        pixels[_CELLS * label + _GRID * row + column] += area
        rest[label] = rest.get(label, 0) - area
    for label, area in rest.items():  # earlier versions recorded no objects
        pixels[_CELLS * label + _CELLS // 2] += max(area, 0)
    pixels[_CELLS * BACKGROUND] += numbers.background
    pixels[_IGNORED] += numbers.ignored
    return np.array([(key, count / (height * width)) for key, count in sorted(pixels.items()) if count]).reshape(-1, 2)


def label_vectors(shares: Sequence[Shares]) -> Vectors:
    """Return image vectors [n, d] from `label_shares`, weighted by inverse document frequency."""
    ids = np.unique(np.concatenate([np.zeros(0), *(rows[:, 0] for rows in shares)]))
    images = np.zeros(len(ids), np.float32)
    for rows in shares:
        images[np.searchsorted(ids, rows[:, 0])] += 1
    weights = np.log1p(len(shares) / np.maximum(images, 1)).astype(np.float32)
    vectors = []
    for rows in shares:
        columns = np.searchsorted(ids, rows[:, 0])
        vector = np.zeros((1, len(ids)), np.float32)
        vector[0, columns] = np.sqrt(rows[:, 1]) * weights[columns]
        vectors.append(_project(_normalize(vector))[0])
    return np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)


def nearest(vectors: Vectors, number: int) -> Iterator[list[int]]:
    """Yield the indices of the most similar images for each image, nearest first; [] for a zero vector."""
    known: NDArray[np.bool_] = np.asarray(vectors.any(1))
    for start in range(0, len(vectors), _BATCH):
        similarity = vectors[start : start + _BATCH] @ vectors.T  # [b, n]
        similarity[:, ~known] = -np.inf
        similarity[np.arange(len(similarity)), start + np.arange(len(similarity))] = -np.inf
        for image, row in enumerate(similarity.round(5), start):
            best = np.argsort(-row, kind="stable")[:number].tolist()
            yield [other for other in best if known[image] and np.isfinite(row[other])]


def _normalize(vectors: Vectors) -> Vectors:
    """Scale vectors [n, d] to unit length, except zero vectors."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _project(vectors: Vectors) -> Vectors:
    length = vectors.shape[1]
    return vectors if length <= LENGTH else _normalize(vectors @ _projection(length))


@cache
def _projection(length: int) -> Vectors:
    return np.random.default_rng(length).standard_normal((length, LENGTH)).astype(np.float32)
