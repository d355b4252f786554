"""Totals of all images of a folder: numbers for run.json, and short lines for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from tipsseg.label_map import LabelMap
from tipsseg.run.summary import TotalsSum, label_summary
from tipsseg.types import LabelArray, LabelClass


def classes_of(*names: str) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(number, name, (1, 2, 3)) for number, name in enumerate(names, 1))


CLASSES = classes_of("panda leg", "tree", "bench")
ONE: LabelArray = np.array([[0, 2, 2], [0, 2, 255]], np.uint8)
OTHER: LabelArray = np.array([[2, 2, 1, 2]], np.uint8)


def summary_of(labels: LabelArray) -> Mapping[str, object]:
    return label_summary(LabelMap(labels, np.ones(labels.shape, np.float32), CLASSES))


def total(summaries: Iterable[Mapping[str, object]], classes: tuple[LabelClass, ...]) -> TotalsSum:
    found = TotalsSum(classes)
    for each in summaries:
        found.add(each)
    return found


def test_numbers_of_all_images() -> None:
    found = total(map(summary_of, [ONE, OTHER]), CLASSES)
    assert found.record() == {
        "images": 2,
        "pixels": 10,
        "background": 2,
        "ignored": 1,
        "classes": [
            {"id": 1, "name": "panda leg", "images": 1, "pixels": 1, "share": 0.1},
            {"id": 2, "name": "tree", "images": 2, "pixels": 6, "share": 0.6},
            {"id": 3, "name": "bench", "images": 0, "pixels": 0, "share": 0.0},
        ],
    }
    assert list(found.lines()) == [
        "Found in 2 images, by area: tree 60.0% (in 2), panda leg 10.0% (in 1).",
        "Never found: bench.",
    ]


def one_of(share: int, images: int, *names: str) -> list[str]:
    """The lines of images of 10,000 pixels, the first of which has so many of each class."""
    shown = enumerate(names, start=1) if share else ()
    classes = [{"id": number, "name": name, "pixels": share, "confidence": 0.5} for number, name in shown]
    empty = {"height": 100, "width": 100, "classes": [], "background": {"pixels": 0}, "ignored": 0}
    return list(total([{**empty, "classes": classes}, *[empty] * (images - 1)], classes_of(*names)).lines())


TEN = [f"c{number}" for number in range(1, 11)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (one_of(5000, 1, "a"), ["Found in 1 image, by area: a 50.0% (in 1)."]),
        (one_of(1, 1, "a"), ["Found in 1 image, by area: a <0.1% (in 1)."]),
        (one_of(0, 3, "a", "b"), ["Never found: a, b."]),
        (one_of(0, 1, *TEN), ["Never found: c1, c2, c3, c4, c5, c6, c7, c8 and 2 more."]),
        (one_of(0, 1, "x" * 5000), [f"Never found: {'x' * 37}...."]),
        (one_of(0, 1, "salt, pepper", "b"), ['Never found: "salt, pepper", b.']),
        (one_of(0, 1, "a\nError: \x1b[31mb", "\x00"), ["Never found: a Error: [31mb, class 2."]),
    ],
)
def test_totals_are_told_in_lines(lines: list[str], expected: list[str]) -> None:
    assert lines == expected
