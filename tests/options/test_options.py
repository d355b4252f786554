"""The options of files: areas in pixels and percent, and records of them."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

import tipsseg
from tipsseg.errors import UsageError
from tipsseg.options import MinArea, default_jobs, parse_min_area
from tipsseg.options.fields import record_of
from tipsseg.options.records import (
    DEFAULT_FILE_OPTIONS,
    ComputeOptions,
    FileOptions,
)

AREAS = {
    "0": MinArea(0),
    " 7 ": MinArea(7),
    ".5%": MinArea(0.5, percent=True),
    "100%": MinArea(100, percent=True),
    "0.0000001%": MinArea(1e-7, percent=True),
    "33.333333333333336%": MinArea(100 / 3, percent=True),
}


@pytest.mark.parametrize(("text", "area"), AREAS.items(), ids=AREAS.keys())
def test_areas_are_read_and_written(text: str, area: MinArea) -> None:
    assert parse_min_area(text) == area
    assert str(area) == {" 7 ": "7", ".5%": "0.5%"}.get(text, text)
    assert parse_min_area(str(area)) == area


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "x", "5 %", "%", "1e3", "-1%", "101%", "٣", "1_000", "nan%", "9" * 5000]
)
def test_other_texts_are_no_areas(text: str) -> None:
    with pytest.raises(UsageError, match=r"`min_area`=.* is not an area"):
        parse_min_area(text)


@pytest.mark.parametrize(
    ("area", "pixels"),
    [("50", 50), ("0", 0), ("1%", 12), ("0.1%", 2), ("0.01%", 1), ("0%", 0), ("100%", 1200)],
)
def test_pixels_are_those_of_the_image(area: str, pixels: int) -> None:
    """Rounded up: an object of exactly the percentage is large enough, one below it is not."""
    assert parse_min_area(area).pixels((30, 40)) == pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instances": "all"}, "`instances` must be one of component, class, not 'all'"),
        ({"names": 1}, "`names` must be one of stem, full, not 1"),
        ({"min_area": []}, r"`min_area` must be a whole number, not \[\]"),
        ({"simplify": "2"}, "`simplify` must be a number, not '2'"),
        ({"simplify": True}, "`simplify` must be a number, not True"),
        ({"simplify": math.nan}, "`simplify` must be at least 0 and at most 1000, not nan"),
        ({"simplify": -1}, "`simplify` must be at least 0 and at most 1000, not -1"),
        ({"val_fraction": 1}, "`val_fraction` must be at least 0 and below 1, not 1"),
    ],
)
def test_values_of_a_record_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FileOptions(**{**record_of(DEFAULT_FILE_OPTIONS), **change})  # type: ignore[arg-type]


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
    assert default_jobs() == ComputeOptions().jobs == jobs
    assert ComputeOptions(jobs=50).jobs == 50


def test_a_keyword_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"label_folder\(\) got an unexpected keyword argument 'min_confidense'"):
        tipsseg.label_folder("imgs", ["a"], min_confidense=0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        (ComputeOptions, {"device": True}, "unknown device True"),
        (ComputeOptions, {"dtype": "int4"}, "unknown dtype 'int4'"),
    ],
)  # fmt: skip
def test_options_that_exclude_each_other_or_cannot_be(record: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        record(**options)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": True}, "`sample` must be a whole number, not True"),
        ({"formats": 1}, "`formats` must be a list of names, not 1"),
        ({"ray": True}, "`ray`=True is not the address"),
        ({"overwrite": 1}, "`overwrite` must be True or False, not 1"),
    ],
)
def test_values_are_checked_when_a_folder_is_labelled(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tipsseg.iter_label_folder("imgs", ["a"], **options)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce_zero_label": True, "zero_based": True}, "`reduce_zero_label` and `zero_based`"),
        ({"layout": "voc20", "ignore_index": 0}, "`layout` and `ignore_index` exclude each other"),
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tipsseg.review.score_masks("labels", "masks", **options)
    assert caught.value.message.startswith(message)
