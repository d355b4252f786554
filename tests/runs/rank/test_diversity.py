from __future__ import annotations

import numpy as np
import pytest

from tipsseg.runs.rank import diversity
from tipsseg.runs.rank.diversity import baseline_similarity, diverse_order


def apart(number: int) -> np.ndarray:
    """Vectors of images that are not alike at all."""
    return np.eye(number, dtype=np.float32)


def repeated(scenes: int, times: int) -> np.ndarray:
    """Vectors of scenes, each several times."""
    return np.repeat(apart(scenes), times, axis=0)


SAME = [(1,)] * 100


def test_a_scene_comes_again_after_the_others() -> None:
    """Ten scenes, twelve times each: the first scene has the most errors, in all its images."""
    errors = [0.5 - 0.001 * place for place in range(12)] + [0.3 - 0.001 * place for place in range(108)]
    order = diverse_order(errors, repeated(10, 12), [(1,)] * 120)
    assert [place // 12 for place in order[:10]] == list(range(10))
    assert order[0] == 0
    assert sorted(order) == list(range(120))


def test_a_much_worse_image_comes_although_it_is_like_another() -> None:
    errors = [0.9, 0.8, *([0.01] * 18)]
    assert diverse_order(errors, repeated(10, 2), SAME[:20])[:2] == [0, 1]


def test_images_of_which_nothing_is_known_are_like_no_other() -> None:
    vectors = np.concatenate([np.zeros((2, 10), np.float32), repeated(10, 2)])
    errors = [0.5, 0.49, 0.4, 0.39, *([0.2] * 18)]
    assert diverse_order(errors, vectors, [(1,)] * 22)[:4] == [0, 1, 2, 4]


def test_an_image_with_a_new_class_comes_earlier_and_only_the_first() -> None:
    errors = [0.5, 0.4, 0.35, 0.34]
    classes = [(1,), (1,), (1, 2), (1, 2)]
    assert diverse_order(errors, apart(4), classes) == [0, 2, 1, 3]


def test_beyond_the_chosen_ones_errors_alone_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "CHOSEN", 2)
    errors = [0.5, 0.5, 0.5, 0.4, 0.3, 0.3]
    assert diverse_order(errors, repeated(3, 2), SAME[:6]) == [0, 2, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("vectors", "likeness"),
    [
        (apart(20), 0.0),
        (np.ones((20, 1), np.float32), 0.98),
        (-np.ones((2, 1), np.float32) * [[1], [-1]], 0.0),
        (np.zeros((5, 3), np.float32), 0.0),
        (np.zeros((0, 3), np.float32), 0.0),
        (repeated(30, 2), 0.0),
    ],
    ids=["none alike", "all alike", "opposite", "unknown", "no image", "pairs"],
)
def test_baseline_similarity(vectors: np.ndarray, likeness: float) -> None:
    assert baseline_similarity(vectors) == likeness
