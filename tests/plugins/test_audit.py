"""Doubts about existing labels: which regions, which kind, which score."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tipsseg.plugins.audit.findings import Doubt, find_doubts

SIZE = (60, 90)
PATCH = 10.0

Labels = NDArray[np.uint8]


def box(label: int, top: int, left: int, bottom: int, right: int, on: Labels | None = None) -> Labels:
    labels = np.zeros(SIZE, np.uint8) if on is None else on.copy()
    labels[top:bottom, left:right] = label
    return labels


def doubts(
    labels: Labels, given: Labels, confidence: float = 0.8, instances: NDArray[np.int32] | None = None
) -> list[Doubt]:
    found = find_doubts(
        labels,
        np.full(SIZE, confidence, np.float32),
        given,
        np.zeros(SIZE, np.int32) if instances is None else instances,
        classes=3,
        patch=PATCH,
    )
    return [doubt for doubt in found if doubt.score > 0]


BOX = box(1, 10, 10, 40, 40)

#: Labels of the model, existing labels -> kind, label, seen and score of each doubt.
CASES: dict[str, tuple[Labels, Labels, list[tuple[str, int, int, float]]]] = {
    "the model agrees": (BOX, BOX, []),
    "another class": (box(2, 10, 10, 40, 40), BOX, [("class", 1, 2, 0.8)]),
    "nothing": (np.zeros(SIZE, np.uint8), BOX, [("nothing", 1, 0, 0.8)]),
    "without a label": (BOX, np.zeros(SIZE, np.uint8), [("unlabelled", 0, 1, 0.8)]),
    "a blurred edge": (box(1, 6, 6, 44, 44), BOX, []),
    "a wrong edge": (box(1, 13, 13, 37, 37, box(2, 10, 10, 40, 40)), BOX, []),
    "a thin region": (np.zeros(SIZE, np.uint8), box(1, 10, 10, 40, 14), [("nothing", 1, 0, 0.8 * 2 / (0.85 * PATCH))]),
    "a thin thing without a label": (box(1, 10, 10, 40, 20), np.zeros(SIZE, np.uint8), []),
    "ignored pixels have no label to doubt": (BOX, box(255, 0, 0, 60, 90), []),
    "the model is unsure": (box(255, 10, 10, 40, 40), BOX, []),
}


@pytest.mark.parametrize("case", CASES)
def test_doubts_of_labels(case: str) -> None:
    labels, given, wanted = CASES[case]
    found = doubts(labels, given)
    assert [(doubt.kind, doubt.label, doubt.seen) for doubt in found] == [each[:3] for each in wanted]
    assert [doubt.score for doubt in found] == pytest.approx([each[3] for each in wanted], abs=0.02)


def test_objects_that_touch_are_doubted_one_by_one() -> None:
    instances = np.zeros(SIZE, np.int32)
    instances[10:40, 10:40], instances[10:40, 40:70] = 1, 2
    given = box(1, 10, 10, 40, 70)
    labels = box(2, 10, 40, 40, 70, given)
    (doubt,) = doubts(labels, given, instances=instances)
    assert (doubt.region.box, doubt.seen) == ((10, 40, 30, 30), 2)


def test_half_of_a_region_is_no_doubt() -> None:
    assert doubts(box(2, 10, 10, 40, 24, BOX), BOX) == []
    (doubt,) = doubts(box(2, 10, 10, 40, 32, BOX), BOX)
    assert 0 < doubt.score < 0.6
