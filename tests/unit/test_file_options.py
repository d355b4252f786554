"""What becomes of the options of files: areas in pixels and percent, and records of them."""

from __future__ import annotations

import pytest

from tipsseg.errors import UsageError
from tipsseg.file_options import (
    DEFAULT_FILE_OPTIONS,
    FileOptions,
    LeastArea,
    parse_file_options,
    parse_least_area,
)

AREAS = {
    "0": LeastArea(0),
    "50": LeastArea(50),
    " 7 ": LeastArea(7),
    "0.1%": LeastArea(0.1, percent=True),
    ".5%": LeastArea(0.5, percent=True),
    "100%": LeastArea(100, percent=True),
    "0%": LeastArea(0, percent=True),
    "10%": LeastArea(10, percent=True),
    "0.123456789%": LeastArea(0.123456789, percent=True),
    "0.0000001%": LeastArea(1e-7, percent=True),
    "33.333333333333336%": LeastArea(100 / 3, percent=True),
}


@pytest.mark.parametrize(("text", "area"), AREAS.items(), ids=AREAS.keys())
def test_areas_are_read_and_written(text: str, area: LeastArea) -> None:
    assert parse_least_area(text) == area
    assert str(area) == {" 7 ": "7", ".5%": "0.5%"}.get(text, text)
    assert parse_least_area(str(area)) == area


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "x", "5 %", "%", "1e3", "-1%", "1%%", "٣", "1_000", "nan%", "9" * 5000]
)
def test_what_is_no_area(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_least_area(text)
    assert caught.value.message == f"--min-area {text} is no area"
    assert caught.value.hint == 'Give a whole number of pixels, or a percentage of the image such as "0.1%".'


def test_more_than_the_image() -> None:
    with pytest.raises(UsageError, match="--min-area 101% is more than the whole image"):
        parse_least_area("101%")


@pytest.mark.parametrize(
    ("area", "pixels"),
    [("50", 50), ("0", 0), ("1%", 12), ("0.1%", 2), ("0.01%", 1), ("0%", 0), ("100%", 1200)],
)
def test_pixels_are_those_of_the_image(area: str, pixels: int) -> None:
    """Rounded up: an object of exactly the percentage is large enough, one below it is not."""
    assert parse_least_area(area).pixels((30, 40)) == pixels


OPTIONS = FileOptions("class", LeastArea(0.5, percent=True), "P")


@pytest.mark.parametrize("options", [DEFAULT_FILE_OPTIONS, OPTIONS])
def test_options_are_written_and_read(options: FileOptions) -> None:
    assert parse_file_options({**options.record(), "mode": "slide"}) == options


def test_the_record() -> None:
    assert DEFAULT_FILE_OPTIONS.record() == {"instances": "component", "min_area": "1", "png_mode": "L"}
    assert OPTIONS.record() == {"instances": "class", "min_area": "0.5%", "png_mode": "P"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instances": "all"}, "unknown instances 'all'"),
        ({"instances": None}, "no `instances`"),
        ({"min_area": 1}, "`min_area` is 1"),
        ({"min_area": "few"}, "--min-area few is no area"),
        ({"png_mode": "RGB"}, "unknown mode of PNG files 'RGB'"),
    ],
)
def test_records_by_others(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_file_options({**DEFAULT_FILE_OPTIONS.record(), **change})


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"instances": "object"}, "Use one of component, class."), ({"png_mode": "rgb"}, "Use one of L, P.")],
)
def test_wrong_options_say_what_there_is(options: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        FileOptions(**options)  # type: ignore[arg-type]
    assert caught.value.hint == hint
