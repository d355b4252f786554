"""The picture of a confusion matrix: its colours where they belong, and a sane size for any number of classes."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tipsseg.evaluation.confusion_picture import draw, render
from tipsseg.evaluation.metrics import Confusion

PAPER = (252, 252, 253)
NO_TRUTH = (236, 237, 240)
NOTHING = (243, 246, 252)
ALL = (6, 26, 64)


def random_confusion(classes: int, background: bool) -> Confusion:
    confusion = Confusion(classes, background)
    rng = np.random.default_rng(classes)
    confusion.counts += rng.integers(0, 5, confusion.counts.shape) * (rng.random(confusion.counts.shape) < 0.1)
    np.fill_diagonal(confusion.counts, 30)
    return confusion


def has(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (picture == np.array(colour, np.uint8)).all(2)
    return found


@pytest.mark.parametrize(
    ("classes", "background"), [(1, False), (2, True), (25, False), (60, True), (171, False), (3000, True)]
)
def test_any_number_of_classes(classes: int, background: bool) -> None:
    picture = render(random_confusion(classes, background), [f"class number {n}" for n in range(classes)], 0.5)
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    assert max(height, width) <= 4000
    assert width >= 420
    # Paper all around: nothing runs over the edge.
    edge = np.concatenate(
        [
            picture[:4].reshape(-1, 3),
            picture[-4:].reshape(-1, 3),
            picture[:, :4].reshape(-1, 3),
            picture[:, -4:].reshape(-1, 3),
        ]
    )
    assert (edge == PAPER).all()


def test_cells_have_the_colours_of_their_shares() -> None:
    confusion = Confusion(40, False)
    np.fill_diagonal(confusion.counts, 7)
    confusion.counts[3] = 0  # no truth
    confusion.counts[5] = 0
    confusion.counts[5, 40] = 1  # all without a label
    picture = render(confusion, [f"c{n}" for n in range(40)])
    # Without the legend and the lines between the cells: squares of 19 pixels.
    cells = picture[:-58]
    rows, columns = np.nonzero(has(cells, ALL))
    assert rows.size == 39 * 19 * 19
    rows_without, columns_without = np.nonzero(has(cells, NO_TRUTH))
    assert rows_without.size == 41 * 19 * 19
    assert has(cells, NOTHING).sum() == 39 * 40 * 19 * 19
    # In the order of the ids: down and to the right, 20 pixels a step; "none" stands apart by a quarter of that.
    top, left = int(rows.min()), int(columns.min())
    corners = sorted((y, x) for y, x in zip(rows - top, columns - left, strict=True) if y % 20 == 0)
    firsts = {int(y) // 20: int(x) for y, x in reversed(corners)}
    assert firsts == {n: 20 * n for n in range(40) if n not in (3, 5)} | {5: 40 * 20 + 5}
    assert rows_without.min() == top + 3 * 20
    assert columns_without.max() == left + 40 * 20 + 5 + 18


def test_few_classes_have_numbers_and_many_have_not() -> None:
    def inks(classes: int) -> int:
        """Colours that are neither the paper, a cell of nothing or of all, nor the line between: text in the first cell."""
        confusion = Confusion(classes, False)
        np.fill_diagonal(confusion.counts, 1)
        picture = render(confusion, ["x"] * classes)
        rows, columns = np.nonzero(has(picture[:-58], ALL))
        first = picture[rows.min() : rows.min() + 19, columns.min() : columns.min() + 19]
        return len(np.unique(first.reshape(-1, 3), axis=0))

    assert inks(32) > 3
    assert inks(33) == 1


def test_the_mean_iou_is_in_the_title() -> None:
    confusion = random_confusion(3, True)
    names = ["a", "b", "c"]
    without = render(confusion, names)
    assert np.array_equal(without, render(confusion, names, math.nan))
    titled = render(confusion, names, 0.5)
    assert not np.array_equal(without[:40], titled[:40])
    assert np.array_equal(without[40:], titled[40:])
    assert not np.array_equal(titled, render(confusion, names, 0.6))


@pytest.mark.parametrize("name", ["x" * 500, "猫", "a\nb", "\x00", "\N{SNOWMAN} \U0001f600", 'mean, "quoted"'])
def test_names_of_any_kind(name: str) -> None:
    picture = render(random_confusion(2, True), [name, "tree"])
    assert picture.shape[1] < 900


def test_the_file_is_the_picture_and_the_same_each_time() -> None:
    confusion = random_confusion(5, True)
    names = ["a", "b", "c", "d", "e"]
    data = draw(confusion, names, 0.25)
    assert data == draw(confusion, names, 0.25)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), render(confusion, names, 0.25))


def test_a_matrix_of_nothing() -> None:
    picture = render(Confusion(3, True), ["a", "b", "c"], math.nan)
    assert has(picture, NO_TRUTH).sum() > 4 * 5 * 20 * 20
    assert not has(picture[:-58], ALL).any()


def test_small_shares_can_be_seen() -> None:
    confusion = Confusion(40, False)
    np.fill_diagonal(confusion.counts, 10_000)
    confusion.counts[0, :2] = [9216, 784]  # 92 and 8 per cent
    cells = render(confusion, ["x"] * 40)[:-58]
    assert has(cells, (158, 196, 236)).sum() == 19 * 19
    rows, columns = np.nonzero(has(cells, (158, 196, 236)))
    assert (rows.min(), columns.min()) == (
        np.nonzero(has(cells, ALL))[0].min() - 20,
        np.nonzero(has(cells, ALL))[1].min(),
    )
