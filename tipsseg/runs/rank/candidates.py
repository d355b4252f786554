"""Collect the images of a run, and put them into the order of review."""

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
from tipsseg.util.printable import counted


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """The facts about an image that are kept, some hundred bytes."""

    image: str
    error: float
    classes: tuple[int, ...]
    shares: Shares
    sha256: str | None


class Candidates:
    """Images, added in any order. Vectors and orders are of the images as they were added."""

    def __init__(self) -> None:
        self._all: list[_Candidate] = []

    def add(self, entry: ManifestEntry) -> float:
        """Add an image, and return its expected error."""
        numbers, error = entry.numbers, expected_error(entry)
        classes = tuple(entry.id for entry in numbers.classes if entry.pixels)
        shares = label_shares(numbers, entry.objects or ())
        self._all.append(_Candidate(entry.image, error, classes, shares, entry.fingerprint.sha256))
        return error

    @property
    def images(self) -> list[str]:
        return [candidate.image for candidate in self._all]

    def vectors(self, features: Path | None) -> tuple[Vectors, int]:
        """Return how alike the images are, see `likeness`: by their class tokens, or without a feature store by their labels.

        Returns:
            The vectors [n, d], and how many images have no features that can be read: their vectors are zeros.

        Raises:
            InputError: There is no store.
            OutputError: The folder is not a store, or not of this version.
        """
        if features is None:
            return label_vectors([candidate.shares for candidate in self._all]), 0
        return _token_vectors(features, [candidate.sha256 for candidate in self._all])

    def order(self, vectors: Vectors) -> list[str]:
        """Return the names of the images, those first that are to be reviewed first; see `diversity`."""
        places = sorted(range(len(self._all)), key=lambda at: (-self._all[at].error, name_order(self._all[at].image)))
        ordered = [self._all[at] for at in places]
        found = diverse_order(
            [candidate.error for candidate in ordered], vectors[places], [candidate.classes for candidate in ordered]
        )
        return [ordered[at].image for at in found]


def without_features(missing: int, features: Path | None) -> str:
    return f"{counted(missing, 'image')} without features in {features}: not known which images are like these."


def _token_vectors(features: Path, hashes: list[str | None]) -> tuple[Vectors, int]:
    if read_store(features) is None:
        hint = "Make them: tipsseg encode, or tipsseg label with argument `features`."
        raise InputError(f"{features}: no features in it", hint)
    found: dict[int, Vectors] = {}
    for place, sha256 in enumerate(hashes):
        try:
            if sha256 is not None:
                found[place] = token_vector(read_class_tokens(feature_path(features, sha256)))
        except FeatureFileError:
            continue
    length = max((len(vector) for vector in found.values()), default=1)
    vectors = np.zeros((len(hashes), length), np.float32)
    for place, vector in found.items():
        if len(vector) == length:  # a store has features of one model
            vectors[place] = vector
    return vectors, len(hashes) - len(found)
