"""Find similar images by the class tokens in a feature store.

Vectors have unit length, so the dot product of two vectors is the cosine similarity of the images. An image without features has a
zero vector, and no similar images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import FeatureFileError, InputError
from tipsseg.features.file import read_class_tokens
from tipsseg.features.folder import feature_path, read_store

Vectors = NDArray[np.float32]

#: Longer vectors are projected to this length by a fixed random matrix, which changes products by about 0.1.
_LENGTH = 128

#: The number of images to compare with all images in one matrix product.
_BATCH = 256


def token_vectors(features: Path, hashes: Sequence[str | None]) -> Vectors:
    """Return vectors [n, d] of images from their class tokens, by sha256. Raise InputError if the folder is not a feature store."""
    if read_store(features) is None:
        hint = "Compute features with tipsseg encode, or with tipsseg label and argument `features`."
        raise InputError(f"{features}: not a feature store", hint)
    vectors = np.zeros((len(hashes), 1), np.float32)
    for index, sha256 in enumerate(hashes):
        try:
            vector = _token_vector(read_class_tokens(feature_path(features, sha256))) if sha256 else None
        except FeatureFileError:
            continue
        if vector is not None and vectors.shape[1] == 1:
            vectors = np.zeros((len(hashes), len(vector)), np.float32)
        if vector is not None and len(vector) == vectors.shape[1]:  # a store has features of one model
            vectors[index] = vector
    return vectors


def _token_vector(class_tokens: NDArray[np.floating]) -> Vectors:
    """Return an image's vector [d] from its class tokens [B, C, D], averaged over the B windows."""
    means = class_tokens.astype(np.float32).mean(0)  # [C, D]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
    return _project(_normalize(means.reshape(1, -1)))[0]


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
    return vectors if length <= _LENGTH else _normalize(vectors @ _projection(length))


@cache
def _projection(length: int) -> Vectors:
    return np.random.default_rng(length).standard_normal((length, _LENGTH)).astype(np.float32)
