"""The picture of a confusion matrix: its cells, names and numbers, and a sane size for any number of classes."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tipsseg.evaluation.confusion_picture import draw, plot
from tipsseg.evaluation.metrics import Confusion


def random_confusion(classes: int, background: bool) -> Confusion:
    confusion = Confusion(classes, background)
    rng = np.random.default_rng(classes)
    confusion.counts += rng.integers(0, 5, confusion.counts.shape) * (rng.random(confusion.counts.shape) < 0.1)
    np.fill_diagonal(confusion.counts, 30)
    return confusion


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def cells_of(figure: Figure) -> np.ndarray:
    cells = axes_of(figure).images[0].get_array()
    assert cells is not None
    return cells


def row_labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in axes_of(figure).get_yticklabels()]


def colour_of(figure: Figure, share: float) -> tuple[int, ...]:
    return tuple(int(channel) for channel in axes_of(figure).images[0].to_rgba(np.array([[share]]), bytes=True)[0, 0])


@pytest.mark.parametrize(
    ("classes", "background"), [(1, False), (2, True), (33, False), (171, False), (300, True), (3000, False)]
)
def test_any_number_of_classes(classes: int, background: bool) -> None:
    confusion = random_confusion(classes, background)
    figure = plot(confusion, [f"class number {n}" for n in range(classes)], 0.5)
    width, height = figure.get_size_inches() * figure.dpi
    assert 300 <= height <= 4000
    assert 300 <= width <= 4000
    rows = len(confusion.counts)
    assert cells_of(figure).shape == (rows, rows + 1)
    assert len(row_labels(figure)) == (rows if rows <= 200 else 0)
    assert len(axes_of(figure).get_xticklabels()) == (rows + 1 if rows <= 200 else 0)
    assert bool(axes_of(figure).texts) == (rows <= 32)


def test_cells_are_shares_of_the_row() -> None:
    confusion = Confusion(4, True)
    confusion.counts[0, 0] = 7
    confusion.counts[1, :3] = [0, 3, 1]
    confusion.counts[3, 5] = 1  # without a label; rows 2 and 4 have no truth
    cells = cells_of(plot(confusion, ["a", "b", "c", "d"]))
    assert np.ma.filled(cells, -1).tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 0.75, 0.25, 0, 0, 0],
        [-1] * 6,
        [0, 0, 0, 0, 0, 1],
        [-1] * 6,
    ]


def test_a_few_per_cent_can_be_seen() -> None:
    figure = plot(random_confusion(2, False), ["a", "b"])
    brightness = [sum(colour_of(figure, share)[:3]) for share in (0, 0.02, 0.2, 0.5, 1)]
    assert brightness == sorted(brightness, reverse=True)
    assert brightness[0] - brightness[1] > 30
    assert colour_of(figure, math.nan)[:3] == (236, 237, 240)  # a row without truth


def test_numbers_are_0_and_100_only_where_they_are_exact() -> None:
    confusion = Confusion(4, False)
    confusion.counts[:] = [[10000, 0, 0, 0, 0], [0, 9999, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 8, 2]]
    texts = axes_of(plot(confusion, ["a", "b", "c", "d"])).texts
    found = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in texts}
    assert found == {
        (0, 0): "100",
        (1, 1): ">99",
        (1, 2): "<1",
        (2, 0): "33",
        (2, 1): "33",
        (2, 2): "33",
        (3, 3): "80",
        (3, 4): "20",
    }


NAMES = {
    "plain": ("tree", "tree"),
    "accents": ("Straße é", "Straße é"),
    "too long": ("x" * 500, "x" * 29 + "..."),
    "no such letters": ("猫", "class 1"),
    "a line end": ("a\nb", "a b"),
    "a control character": ("\x00", "class 1"),
    "no formula": ("$a_1$ and $\\frac{", "$a_1$ and $\\frac{"),
}


@pytest.mark.parametrize(("name", "written"), NAMES.values(), ids=NAMES)
def test_names_of_any_kind(name: str, written: str) -> None:
    confusion = random_confusion(2, True)
    assert row_labels(plot(confusion, [name, "tree"])) == ["background", written, "tree"]
    columns = axes_of(plot(confusion, [name, "tree"])).get_xticklabels()
    assert [label.get_text() for label in columns] == ["background", written, "tree", "none"]
    assert draw(confusion, [name, "tree"])


TITLES = {"a mean": (0.456, "mean IoU 45.6\n"), "none": (None, ""), "not defined": (math.nan, "")}


@pytest.mark.parametrize(("mean", "begin"), TITLES.values(), ids=TITLES)
def test_the_title(mean: float | None, begin: str) -> None:
    title = axes_of(plot(random_confusion(3, True), ["a", "b", "c"], mean)).get_title()
    assert title == f"{begin}Confusion of pixels, in % of the truth (rows)"


def test_the_file_is_a_png_and_the_same_each_time_whatever_the_users_style() -> None:
    confusion = random_confusion(5, True)
    names = ["a", "b", "c", "d", "e"]
    data = draw(confusion, names, 0.25)
    with rc_context({"figure.facecolor": "red", "font.size": 30}):
        assert draw(confusion, names, 0.25) == data
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert "Software" not in image.info
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[:2] == 255).all()  # nothing runs over the edge
    assert (pixels[-2:] == 255).all()
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, -2:] == 255).all()


def test_a_matrix_of_nothing() -> None:
    figure = plot(Confusion(3, True), ["a", "b", "c"], math.nan)
    assert len(axes_of(figure).texts) == 0
    assert np.ma.getmaskarray(cells_of(figure)).all()


def test_without_matplotlib_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError):
        draw(random_confusion(2, False), ["a", "b"])
