"""Totals of all images of a folder: numbers for run.json, and short lines for a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tipsseg.folder.summary import TotalsSum
from tipsseg.formats.mask import MaskFacts, PictureFacts
from tipsseg.types import LabelClass


def classes_of(*names: str) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(number, name, (1, 2, 3)) for number, name in enumerate(names, 1))


def total(images: Iterable[MaskFacts], classes: tuple[LabelClass, ...]) -> TotalsSum:
    found = TotalsSum(classes)
    for each in images:
        found.add(each)
    return found


def one_of(share: int, images: int, *names: str) -> list[str]:
    """The lines of images of 10,000 pixels, the first of which has so many of each class."""
    shown = dict(enumerate(names, start=1)) if share else {}
    empty = MaskFacts(
        image="a.png",
        question="",
        picture=PictureFacts(bytes=0),
        labels="",
        size=(100, 100),
        names={},
        counts={},
        confidence={},
    )
    first = replace(empty, names=shown, counts=dict.fromkeys(shown, share))
    return list(total([first, *[empty] * (images - 1)], classes_of(*names)).lines())


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
