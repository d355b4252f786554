from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipsseg.labelling.view import (
    interpolation_weights,
    make_plan,
    published_size,
    stretched_size,
    window_side,
    window_starts,
    working_size,
)

lengths = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((480, 640), 448, (448, 597)),  # 597.33 is cut, not rounded
        ((50, 800), 448, (448, 7168)),  # 16 to 1
        ((20, 5000), 448, (448, 7168)),
        ((400, 100_000), 448, (448, 89_285)),  # as many pixels as the image has
        ((448, 44_800), 448, (448, 44_800)),  # not enlarged
        ((1, 1), 224, (224, 224)),
    ],
)
def test_working_size(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert working_size(size, short_side) == expected


@given(height=lengths, width=lengths, short_side=st.integers(14, 1000))
def test_the_short_side_is_exact_and_the_aspect_kept_to_a_pixel(height: int, width: int, short_side: int) -> None:
    resized = published_size((height, width), short_side)
    assert min(resized) == short_side
    exact = max(height, width) * short_side / min(height, width)
    assert exact - 1 < max(resized) <= exact


@given(height=lengths, width=lengths, short_side=st.integers(14, 1000))
def test_only_strips_that_are_enlarged_are_not_as_published(height: int, width: int, short_side: int) -> None:
    resized, published = working_size((height, width), short_side), published_size((height, width), short_side)
    long, short = max(height, width), min(height, width)
    if long <= 16 * short or short >= short_side:
        assert resized == published
    assert resized[0] * resized[1] <= max(16 * short_side**2, height * width)
    assert min(resized) == short_side


@pytest.mark.parametrize(
    ("length", "side", "expected"),
    [
        (448, 448, (0,)),
        (784, 448, (0, 336)),
        (785, 448, (0, 336, 337)),
        (100, 42, (0, 31, 58)),  # 31.5 is cut
    ],
)
def test_window_starts(length: int, side: int, expected: tuple[int, ...]) -> None:
    assert window_starts(length, side) == expected


@given(length=lengths, side=st.sampled_from([14, 56, 224, 448]))
def test_windows_cover_everything_and_stay_inside(length: int, side: int) -> None:
    length = max(length, side)
    starts = window_starts(length, side)
    covered = np.zeros(length, bool)
    for start in starts:
        assert 0 <= start <= length - side
        covered[start : start + side] = True
    assert covered.all()
    assert list(starts) == sorted(set(starts))


@given(height=lengths, width=lengths, short_side=st.integers(14, 600), native=st.sampled_from([224, 448]))
def test_plan_holds_square_windows_of_whole_patches(height: int, width: int, short_side: int, native: int) -> None:
    plan = make_plan((height, width), native, short_side, 14)
    assert plan.side == window_side(native, short_side, 14)
    assert plan.side % 14 == 0
    assert plan.side <= min(native, *plan.size)
    assert len(plan.corners) == len(set(plan.corners))


@given(height=lengths, width=lengths)
def test_stretched_size_is_the_next_multiple(height: int, width: int) -> None:
    for before, after in zip((height, width), stretched_size((height, width), 14), strict=True):
        assert after % 14 == 0
        assert 0 <= after - before < 14


@given(source=st.integers(1, 600), target=st.integers(1, 600))
def test_taps_are_convex_and_reproduce_a_ramp(source: int, target: int) -> None:
    taps = interpolation_weights(source, target)
    assert ((taps.weight >= 0) & (taps.weight <= 1)).all()
    assert ((taps.low >= 0) & (taps.high < source)).all()
    position = taps.low * (1 - taps.weight) + taps.high * taps.weight
    exact = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    np.testing.assert_allclose(position, exact, atol=1e-3)
