"""Minimum confidences from tallies of images: what is counted, what is chosen, and by how many images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tipsseg.learning.thresholds import STEPS, Tally, choose_thresholds, student_quantile, tally


def test_pixels_are_counted_from_each_confidence_on() -> None:
    labels = np.array([[1, 1, 2, 0], [1, 1, 2, 2]], np.uint8)
    confidence = np.array([[0.5, 1.0, 0.3, 0.9], [0.2, 0.0, 0.3, 0.3]], np.float32)
    truth = np.array([[1, 2, 2, 1], [1, 1, 255, 0]], np.uint8)
    found = tally(labels, confidence, truth, 2)
    assert found.truth.tolist() == [4, 2]
    at = [0, round(0.2 * STEPS), round(0.2 * STEPS) + 1, STEPS // 2, STEPS // 2 + 1, STEPS]
    assert found.labelled[0, at].tolist() == [4, 3, 2, 2, 1, 1]
    assert found.right[0, at].tolist() == [3, 2, 1, 1, 0, 0]
    assert found.labelled[1, at].tolist() == [2, 2, 2, 0, 0, 0]
    assert found.right[1, at].tolist() == [1, 1, 1, 0, 0, 0]


def image(*bins: tuple[float, int, int]) -> Tally:
    """An image with one class: confidence, pixels, and how many of these are right."""
    labelled, right = np.zeros((1, STEPS + 1), np.int64), np.zeros((1, STEPS + 1), np.int64)
    for confidence, pixels, hits in bins:
        labelled[0, : round(confidence * STEPS) + 1] += pixels
        right[0, : round(confidence * STEPS) + 1] += hits
    return Tally(labelled, right, labelled[:, 0])


GOOD = image((0.9, 100, 99), (0.4, 50, 30))


@pytest.mark.parametrize(
    ("images", "precision", "least"),
    [
        pytest.param([GOOD] * 6, 0.95, 0.405, id="the lowest that is precise enough"),
        pytest.param([GOOD] * 6, 0.8, 0.0, id="none is needed"),
        pytest.param([GOOD] * 6, 0.995, None, id="none is precise enough"),
        # 96 of 100 in the mean, and one image that is all wrong: not known to be 95.
        pytest.param([image((0.9, 100, 100))] * 24 + [image((0.9, 100, 0))], 0.95, None, id="one that is all wrong"),
        pytest.param([image((0.9, 100, 96))] * 25, 0.95, 0.0, id="as many wrong, in all images"),
        pytest.param([image((0.9, 100, 96)), image((0.9, 100, 80))], 0.9, None, id="two images that differ"),
        pytest.param([GOOD], 0.5, None, id="one image is no evidence"),
    ],
)
def test_the_threshold_of_a_class(images: list[Tally], precision: float, least: float | None) -> None:
    (found,) = choose_thresholds(images, precision)
    assert (found.min_confidence, found.reached) == ((1.0, False) if least is None else (least, True))


def test_a_class_that_few_images_have_gets_the_threshold_of_all() -> None:
    none = np.zeros((1, STEPS + 1), np.int64)
    rare = image((0.2, 10, 0))

    def both(first: Tally, second: Tally | None) -> Tally:
        labelled, right = (none, none) if second is None else (second.labelled, second.right)
        return Tally(
            np.concatenate([first.labelled, labelled]), np.concatenate([first.right, right]), np.array([150, 10])
        )

    found = choose_thresholds([both(GOOD, rare), both(GOOD, rare), *[both(GOOD, None)] * 4], 0.95)
    assert [each.own for each in found] == [True, False]
    assert [each.images for each in found] == [6, 2]
    assert found[1].min_confidence == found[0].min_confidence == 0.405


def test_numbers_are_of_images_left_out() -> None:
    """One image is wrong where the others are right: its own threshold would leave its pixels out."""
    odd = image((0.6, 1000, 0))
    (found,) = choose_thresholds([*[image((0.6, 10, 10), (0.9, 10, 10))] * 5, odd], 0.9)
    assert found.min_confidence > 0.6
    # Without the odd image nothing is wrong, and its thousand pixels are kept.
    assert found.precision is not None
    assert found.precision < 0.1
    assert found.recall == pytest.approx(50 / 1100)
    assert found.precision_before == pytest.approx(100 / 1100)


@pytest.mark.parametrize(
    ("level", "freedom", "value"),
    [(0.8, 1, 1.376), (0.8, 2, 1.061), (0.8, 3, 0.978), (0.9, 3, 1.638), (0.8, 9, 0.883), (0.9, 100, 1.290)],
)
def test_quantiles_of_student(level: float, freedom: int, value: float) -> None:
    assert math.isclose(student_quantile(level, freedom), value, abs_tol=0.01)
