"""Names of classes on their regions: inside, on the larger ones, and not too many."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tipsseg.regions.drawing import PlacedName, place_names
from tipsseg.types import LabelClass
from tipsseg.util.lettering import draw_text
from tipsseg.vocabulary.palette import colour


def classes_of(*names: str) -> list[LabelClass]:
    return [LabelClass(number, name, colour(number)) for number, name in enumerate(names, 1)]


def box(placed: PlacedName, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of the name in a picture of this size."""
    picture = Image.new("1", size[::-1])
    text, font, (y, x) = placed
    draw_text(ImageDraw.Draw(picture), (x, y), text, font, anchor="mm", fill=1)
    return np.asarray(picture)


def blobs(seed: int, size: tuple[int, int], classes: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    noise = [cv2.resize(rng.random((5, 7)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
             for _ in range(classes + 1)]  # fmt: skip
    return np.argmax(noise, axis=0).astype(np.uint16)


@pytest.mark.parametrize("size", [(480, 640), (1500, 1100), (200, 300)])
@pytest.mark.parametrize("seed", range(4))
def test_names_lie_in_their_regions(seed: int, size: tuple[int, int]) -> None:
    labels = blobs(seed, size, 4)
    names = ("sky", "panda leg", "tree", "chest of drawers")
    found = place_names(labels, classes_of(*names), 13)
    assert found
    for placed in found:
        number = names.index(placed[0].replace("\n", " ")) + 1
        inside = box(placed, size)
        assert inside.sum() > 20
        assert (labels[inside] == number).all()


def test_a_name_without_room_in_one_line_has_two() -> None:
    labels = np.zeros((200, 300), np.uint16)
    labels[50:150, 100:160] = 1
    ((text, _, middle),) = place_names(labels, classes_of("traffic light"), 13)
    assert text == "traffic\nlight"
    assert np.abs(np.array(middle) - (100, 130)).max() < 25


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", "a b"), ("\x00", "class 1"), ("\ue000", "class 1"), ("", "class 1"), ("W" * 5000, "W" * 20 + "...")],
)
def test_names_of_any_kind(name: str, shown: str) -> None:
    ((text, *_),) = place_names(np.ones((400, 500), np.uint16), classes_of(name), 13)
    assert text.replace("\n", " ") == shown


def test_small_and_thin_regions_have_no_name() -> None:
    labels = np.zeros((400, 400), np.uint16)
    labels[10:20, 10:20] = 1
    labels[100:105, :] = 2
    assert place_names(labels, classes_of("i", "panda"), 13) == []


def test_a_class_has_three_names_and_a_picture_has_eighty() -> None:
    cells = np.arange(400).reshape(20, 20)
    one = ((cells // 20 + cells % 20) % 2).repeat(50, 0).repeat(50, 1).astype(np.uint16)
    one[::50] = one[:, ::50] = 0  # apart at the corners too
    assert [text for text, *_ in place_names(one, classes_of("a"), 13)] == ["a"] * 3
    many = (cells + 1).repeat(50, 0).repeat(50, 1).astype(np.uint16)
    found = place_names(many, classes_of(*(f"c{number}" for number in range(1, 401))), 13)
    assert len(found) == len({text for text, *_ in found}) == 80


def test_ignored_pixels_and_background_have_no_name() -> None:
    labels = np.zeros((300, 300), np.uint16)
    labels[:, 150:] = 255
    assert place_names(labels, classes_of("a"), 13) == []
    labels[:, 150:] = 65535
    assert place_names(labels, classes_of(*(f"c{number}" for number in range(1, 301))), 13) == []
