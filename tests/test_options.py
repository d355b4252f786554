"""What becomes of the options of files: areas in pixels and percent, and records of them."""

from __future__ import annotations

import math
import os

import pytest

from tipsseg.errors import UsageError
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    FileOptions,
    MinArea,
    default_jobs,
    parse_file_options,
    parse_min_area,
    thread_count,
)

AREAS = {
    "0": MinArea(0),
    "50": MinArea(50),
    " 7 ": MinArea(7),
    "0.1%": MinArea(0.1, percent=True),
    ".5%": MinArea(0.5, percent=True),
    "100%": MinArea(100, percent=True),
    "0%": MinArea(0, percent=True),
    "10%": MinArea(10, percent=True),
    "0.123456789%": MinArea(0.123456789, percent=True),
    "0.0000001%": MinArea(1e-7, percent=True),
    "33.333333333333336%": MinArea(100 / 3, percent=True),
}


@pytest.mark.parametrize(("text", "area"), AREAS.items(), ids=AREAS.keys())
def test_areas_are_read_and_written(text: str, area: MinArea) -> None:
    assert parse_min_area(text) == area
    assert str(area) == {" 7 ": "7", ".5%": "0.5%"}.get(text, text)
    assert parse_min_area(str(area)) == area


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "x", "5 %", "%", "1e3", "-1%", "1%%", "٣", "1_000", "nan%", "9" * 5000]
)
def test_what_is_no_area(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_min_area(text)
    assert caught.value.message == f"argument `min_area`={text} is no area"
    assert caught.value.hint == 'Give a whole number of pixels, or a percentage of the image such as "0.1%".'


def test_more_than_the_image() -> None:
    with pytest.raises(UsageError, match="argument `min_area`=101% is more than the whole image"):
        parse_min_area("101%")


@pytest.mark.parametrize(
    ("area", "pixels"),
    [("50", 50), ("0", 0), ("1%", 12), ("0.1%", 2), ("0.01%", 1), ("0%", 0), ("100%", 1200)],
)
def test_pixels_are_those_of_the_image(area: str, pixels: int) -> None:
    """Rounded up: an object of exactly the percentage is large enough, one below it is not."""
    assert parse_min_area(area).pixels((30, 40)) == pixels


OPTIONS = FileOptions("class", MinArea(0.5, percent=True), "P", names="full")


SIMPLER = FileOptions(simplify=1.5, val_fraction=0.25)


@pytest.mark.parametrize("options", [DEFAULT_FILE_OPTIONS, OPTIONS, SIMPLER, FileOptions(simplify=0.0)])
def test_options_are_written_and_read(options: FileOptions) -> None:
    assert parse_file_options({**options.record(), "mode": "slide"}) == options


def test_the_record() -> None:
    assert DEFAULT_FILE_OPTIONS.record() == {"instances": "component", "min_area": "1", "png_mode": "L"}
    assert OPTIONS.record() == {"instances": "class", "min_area": "0.5%", "png_mode": "P", "names": "full"}
    assert SIMPLER.record() == {**SIMPLER.image_record(), "val_fraction": 0.25}
    assert SIMPLER.image_record() == {**DEFAULT_FILE_OPTIONS.record(), "simplify": 1.5}
    assert FileOptions(val_fraction=0.0).record() == DEFAULT_FILE_OPTIONS.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instances": "all"}, "unknown instances 'all'"),
        ({"instances": None}, "no `instances`"),
        ({"min_area": 1}, "`min_area` is 1"),
        ({"min_area": "few"}, "argument `min_area`=few is no area"),
        ({"png_mode": "RGB"}, "unknown mode of PNG files 'RGB'"),
        ({"names": "long"}, "unknown names of files 'long'"),
        ({"names": 1}, "`names` is 1"),
        ({"simplify": "2"}, '`simplify` is "2"'),
        ({"simplify": True}, "`simplify` is true"),
        ({"simplify": 10**400}, "`simplify` is 1000"),
        ({"simplify": math.nan}, "`simplify` is NaN"),
        ({"simplify": -1}, "argument `simplify`=-1 is no distance"),
        ({"val_fraction": 1}, "argument `val_fraction`=1 is no part of the images"),
        ({"val_fraction": []}, r"`val_fraction` is \[\]"),
    ],
)
def test_records_by_others(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_file_options({**DEFAULT_FILE_OPTIONS.record(), **change})


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"instances": "object"}, "Use one of component, class."),
        ({"png_mode": "rgb"}, "Use one of L, P."),
        ({"names": ""}, "Use one of stem, full."),
        ({"simplify": -0.5}, "Give a number from 0 to 1000; 1 or 2 are usual."),
        ({"simplify": math.inf}, "Give a number from 0 to 1000; 1 or 2 are usual."),
        ({"val_fraction": math.nan}, "Give a number from 0 to less than 1, such as 0.2."),
        ({"val_fraction": 20.0}, "Give a number from 0 to less than 1, such as 0.2."),
    ],
)
def test_wrong_options_say_what_there_is(options: dict[str, object], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        FileOptions(**options)  # type: ignore[arg-type]
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("usable", "cores", "jobs"),
    [
        pytest.param({0}, 64, 1, id="one core of a shared machine"),
        pytest.param({3, 5, 7}, 64, 3, id="some cores"),
        pytest.param(set(range(128)), 128, 32, id="a limit"),
        pytest.param(None, 6, 6, id="a system that does not tell"),
        pytest.param(None, None, 1, id="nothing is known"),
    ],
)
def test_default_threads_follow_the_cores(
    usable: set[int] | None, cores: int | None, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    if usable is None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    assert default_jobs() == thread_count(None) == jobs
    assert thread_count(50) == 50
