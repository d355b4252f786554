"""Names in pictures: cut to their room, in a time that does not go with their length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from system_fonts import WATCH, system_font

from tipsseg.regions.drawing import draw_labels
from tipsseg.types import LabelClass
from tipsseg.util.lettering import fit_name, fit_path, plain_font, text_length


@pytest.mark.parametrize("size", [13, 80])
@pytest.mark.parametrize("room", [0.0, 40.0, 200.0, 3000.0])
@pytest.mark.parametrize("name", ["a", "panda leg", "i" * 5000, "W" * 5000, "e" * 499, "cafe au lait " * 40])
def test_a_name_takes_the_room_that_it_has(name: str, room: float, size: int) -> None:
    shown, font = fit_name(name, "class 1", size, room)
    if shown == name:
        assert text_length(font, name) <= room
        return
    start = shown.removesuffix("...")
    assert shown == start + "..."
    assert name.startswith(start)
    assert not start or text_length(font, shown) <= room
    assert text_length(font, name[: len(start) + 1] + "...") > room  # one letter more has no room
    assert text_length(font, name) > room


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[None]:
    with system_font(tmp_path / "bin", WATCH):
        yield


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize(
    ("name", "shown"),
    {
        "in the font of the system": ("a \u231a", "a \u231a"),
        "one letter is missing": ("panda \u732b", "panda ?"),
        "a watch, and a letter that is missing": ("\u231a\u231a \u732b", "\u231a\u231a ?"),
        "most letters are missing": ("\u732b\u732b a", "class 1"),
    }.values(),
)
def test_letters_that_pillow_lacks_come_from_the_font_of_the_system(name: str, shown: str) -> None:
    found, font = fit_name(name, "class 1", 13, 200)
    assert found == shown
    assert 0 < text_length(font, found) <= 200
    assert shown == "class 1" or fit_path(name, 13, 200)[0] == shown


@pytest.mark.usefixtures("watch")
def test_an_overlay_has_the_letters_of_another_font() -> None:
    def overlay(name: str) -> NDArray[np.uint8]:
        labels = np.ones((200, 320), np.uint8)
        return draw_labels(np.zeros((200, 320, 3), np.uint8), labels, [LabelClass(1, name, (0, 0, 0))], "a.png")

    watch = overlay("cat \u231a")
    assert np.array_equal(watch, overlay("cat \u231a"))
    assert np.array_equal(overlay("class 1"), overlay("\u732b"))
    assert not any(np.array_equal(watch, overlay(other)) for other in ("cat", "cat ?", "class 1"))


@pytest.mark.parametrize("font", [None, Path("gone.ttf")], ids=["no fontconfig", "no such font"])
def test_without_fonts_there_is_the_font_of_pillow(tmp_path: Path, font: Path | None) -> None:
    with system_font(tmp_path / "bin", font):
        assert fit_name("\ue000 panda", "class 1", 13, 200) == ("? panda", plain_font(13))


def test_a_name_that_no_font_has_is_replaced() -> None:
    shown, font = fit_name("\ue000" * 5000, "class 7", 13, 250)
    assert (shown, font) == ("class 7", plain_font(13))


@pytest.mark.parametrize("room", [40.0, 200.0, 3000.0])
@pytest.mark.parametrize("path", ["a.png", "day 1/IMG_0001.jpg", "x/" * 3000 + "end.png"])
def test_long_paths_keep_their_end(path: str, room: float) -> None:
    shown, font = fit_path(path, 13, room)
    if shown == path:
        assert text_length(font, path) <= room
        return
    end = shown.removeprefix("...")
    assert shown == "..." + end
    assert path.endswith(end)
    assert text_length(font, shown) <= room < text_length(font, "..." + path[-len(end) - 1 :])


def test_letters_of_a_path_that_no_font_has_are_replaced() -> None:
    assert fit_path("a\ue000/b.png", 13, 300) == ("a?/b.png", plain_font(13))
