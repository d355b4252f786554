"""Names in pictures: cut to their room, in a time that does not go with their length."""

from __future__ import annotations

import pytest

from tipsseg.util import lettering
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


def test_the_time_does_not_go_with_the_length_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def count(font: lettering.Font, text: str) -> float:
        measured.append(len(text))
        return text_length(font, text)

    monkeypatch.setattr(lettering, "text_length", count)
    shown, _ = fit_name("x" * 1_000_000, "class 1", 13, 250)
    assert shown == "x" * 40 + "..."
    assert 0 < sum(measured) < 20 * 250


def test_many_names_ask_the_fonts_once_for_each_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    shape = lettering._shape

    def count(font: lettering.Font, letter: str) -> tuple[tuple[int, int], bytes]:
        asked.append(letter)
        return shape(font, letter)

    lettering._has_letter.cache_clear()
    monkeypatch.setattr(lettering, "_shape", count)
    for number in range(3000):
        fit_name(f"class {number}", "", 13, 250)
    assert len(asked) == 2 * len(set("class0123456789"))


def test_a_name_that_no_font_has_is_replaced() -> None:
    shown, font = fit_name("\ue000" * 5000, "class 7", 13, 250)
    assert (shown, font) == ("class 7", plain_font(13))


@pytest.mark.parametrize("room", [40.0, 200.0, 3000.0])
@pytest.mark.parametrize("path", ["a.png", "day 1/IMG_0001.jpg", "x/" * 3000 + "end.png"])
def test_of_a_path_the_end_is_kept(path: str, room: float) -> None:
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
