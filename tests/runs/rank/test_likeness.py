from __future__ import annotations

import numpy as np
import pytest
from entries import entry_of

from tipsseg.runs.rank.likeness import LENGTH, Shares, label_shares, label_vectors, nearest, token_vector
from tipsseg.store.manifest import ManifestEntry


def shares_of(entry: ManifestEntry) -> Shares:
    return label_shares(entry.numbers, entry.objects or ())


RNG = np.random.default_rng(0)


def whole(label: int, share: float) -> tuple[int, int, int, int, int, int, float]:
    """An object of a share of 100 x 100 pixels, around the middle."""
    return (label, round(share * 10_000), 0, 0, 100, 100, 0.5)


def shown(**shares: float) -> ManifestEntry:
    """An image that shows classes, "c1" and so on, each in one object."""
    objects = tuple(whole(int(name[1:]), share) for name, share in shares.items())
    return entry_of("a", {label: (area, 0.5) for label, area, *_ in objects}, size=(100, 100), objects=objects)


def test_what_labels_hold() -> None:
    objects = ((1, 20, 0, 0, 3, 3, 0.5), (1, 5, 7, 8, 3, 2, 0.5), (2, 10, 0, 0, 10, 10, 0.5))
    entry = entry_of("a", {1: (25, 0.5), 2: (10, 0.5)}, background=(40, 0.5), ignored=25, objects=objects)
    assert label_shares(entry.numbers, ()).tolist() == [[-1, 0.25], [0, 0.4], [9 + 4, 0.25], [18 + 4, 0.1]]
    assert shares_of(entry).tolist() == [[-1, 0.25], [0, 0.4], [9, 0.2], [9 + 8, 0.05], [18 + 4, 0.1]]


def test_vectors_by_labels() -> None:
    images = [shown(c1=0.6, c2=0.4), shown(c1=0.61, c2=0.39), shown(c3=1.0), shown(c1=1.0)]
    vectors = label_vectors([shares_of(each) for each in images])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.99
    assert likeness[0, 2] == 0
    assert 0.3 < likeness[0, 3] < 0.9
    assert label_vectors([]).shape == (0, 1)


def test_images_that_show_the_same_at_other_places_are_less_alike() -> None:
    left, right = (
        entry_of("a", {1: (50, 0.5)}, background=(50, 0.5), objects=((1, 50, 0, x, 10, 5, 0.5),)) for x in (0, 5)
    )
    vectors = label_vectors([shares_of(each) for each in (left, right, left)])
    assert vectors[0] @ vectors[1] < 0.8
    assert vectors[0] @ vectors[2] == pytest.approx(1, abs=1e-5)


def test_what_few_images_show_counts_more() -> None:
    images = [*[shown(c1=1.0)] * 50, *[shown(c1=0.8, c2=0.2)] * 2, *[shown(c1=0.8, c3=0.2)] * 50]
    vectors = label_vectors([shares_of(each) for each in images])
    assert vectors[0] @ vectors[50] < vectors[0] @ vectors[60] - 0.1


def test_vectors_of_many_classes_are_short_and_tell_the_same() -> None:
    entries = [shown(**{f"c{number}": 0.01 for number in range(first, first + 100)}) for first in (1, 11, 300)]
    vectors = label_vectors([shares_of(each) for each in entries])
    assert vectors.shape == (3, LENGTH)
    assert vectors[0] @ vectors[1] > 0.5
    assert abs(vectors[0] @ vectors[2]) < 0.4


def test_vectors_by_class_tokens() -> None:
    tokens = RNG.standard_normal((3, 2, 700)).astype(np.float32)
    changed = tokens + 0.1 * RNG.standard_normal(tokens.shape).astype(np.float32)
    others = RNG.standard_normal(tokens.shape).astype(np.float32)
    vector = token_vector(tokens.astype(np.float16))
    assert vector.shape == (LENGTH,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector @ token_vector(changed) > 0.97
    assert abs(vector @ token_vector(others)) < 0.4
    assert token_vector(tokens[..., :20]).shape == (40,)


def test_the_nearest_images() -> None:
    angles = np.radians([0, 10, 30, 120, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    vectors[4] = 0
    assert list(nearest(vectors, 2)) == [[1, 2], [0, 2], [1, 0], [2, 1], []]
    assert list(nearest(vectors[:1], 2)) == [[]]


def test_the_nearest_of_many_images_are_found_in_parts() -> None:
    vectors = RNG.standard_normal((600, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    assert [each[0] for each in nearest(vectors, 3)] == likeness.argmax(1).tolist()
