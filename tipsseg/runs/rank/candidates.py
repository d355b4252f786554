"""Collect the images of a run, and order them for review."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tipsseg.errors import FeatureFileError, InputError
from tipsseg.features.file import read_class_tokens
from tipsseg.features.folder import feature_path, read_store
from tipsseg.runs.rank.diversity import diverse_order
from tipsseg.runs.rank.expected import expected_error
from tipsseg.runs.rank.likeness import Shares, Vectors, label_shares, label_vectors, token_vector
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import name_order
from tipsseg.util.printable import pluralize


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """The data that an image's rank depends on, a few hundred bytes."""

    image: str
    error: float
    classes: tuple[int, ...]
    shares: Shares
    sha256: str | None


class Candidates:
    """Images to rank. Vectors and names are in the order in which images were added."""

    def __init__(self) -> None:
        self._all: list[_Candidate] = []

    def add(self, entry: ManifestEntry) -> None:
        numbers, error = entry.numbers, expected_error(entry)
        classes = tuple(entry.id for entry in numbers.classes if entry.pixels)
        shares = label_shares(numbers, entry.objects or ())
        self._all.append(_Candidate(entry.image, error, classes, shares, entry.fingerprint.sha256))

    @property
    def images(self) -> list[str]:
        return [candidate.image for candidate in self._all]

    def vectors(self, features: Path | None) -> tuple[Vectors, int]:
        """Return vectors [n, d] to compare images, see `likeness`, and the number of images without readable features.

        Vectors come from the class tokens in a feature store, or, without a store, from the labels. An image without readable
        features has a zero vector.

        Raises:
            InputError: If the store does not exist.
            OutputError: If the folder is not a store of this version.
        """
        if features is None:
            return label_vectors([candidate.shares for candidate in self._all]), 0
        return _token_vectors(features, [candidate.sha256 for candidate in self._all])

    def order(self, vectors: Vectors) -> list[str]:
        """Return the image names in review order, see `diversity`."""
        by_error = sorted(range(len(self._all)), key=lambda i: (-self._all[i].error, name_order(self._all[i].image)))
        candidates = [self._all[index] for index in by_error]
        order = diverse_order(
            [candidate.error for candidate in candidates],
            vectors[by_error],
            [candidate.classes for candidate in candidates],
        )
        return [candidates[index].image for index in order]


def missing_features_note(missing: int, features: Path | None) -> str:
    return f"Did not compare {pluralize(missing, 'image')} with the others: no features in {features}."


def _token_vectors(features: Path, hashes: list[str | None]) -> tuple[Vectors, int]:
    if read_store(features) is None:
        hint = "Compute features with tipsseg encode, or with tipsseg label and argument `features`."
        raise InputError(f"{features}: not a feature store", hint)
    vectors, known = np.zeros((len(hashes), 1), np.float32), 0
    for index, sha256 in enumerate(hashes):
        try:
            vector = token_vector(read_class_tokens(feature_path(features, sha256))) if sha256 else None
        except FeatureFileError:
            continue
        if vector is not None and not known:
            vectors = np.zeros((len(hashes), len(vector)), np.float32)
        if vector is not None and len(vector) == vectors.shape[1]:  # a store has features of one model
            vectors[index] = vector
            known += 1
    return vectors, len(hashes) - known
