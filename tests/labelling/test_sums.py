"""The sums of exp(cosine) over phrases: near those in double precision, and the same whatever else is computed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tipsseg.labelling.sums import Values, WindowSums
from tipsseg.labelling.view import interpolation_weights

#: Patches along a side, their pixels, phrases, and how much cosines differ from patch to patch.
CASES = {
    "as of a model": (8, 14, 40, 0.05),
    "steeper": (8, 14, 40, 0.3),
    "too steep for a polynomial": (8, 14, 40, 1.5),
    "no difference": (4, 14, 3, 0.0),
    "one patch": (1, 14, 3, 0.3),
    "two patches of an odd size": (2, 15, 1, 0.3),
    "many phrases": (3, 16, 900, 0.3),
}


def cosines_of(case: str) -> tuple[Values, int]:
    patches, patch, phrases, spread = CASES[case]
    drawn = np.random.default_rng(4).standard_normal((patches, patches, phrases)) * spread
    return drawn.astype(np.float32), patches * patch


def exact(cosines: Values, side: int) -> NDArray[np.float64]:
    weights = interpolation_weights(len(cosines), side)
    values = cosines.astype(np.float64)
    for axis in (0, 1):
        low, high = np.take(values, weights.low, axis), np.take(values, weights.high, axis)
        weight = weights.weight.astype(np.float64).reshape(-1, *[1] * (2 - axis))
        values = low + (high - low) * weight
    return np.exp(values).sum(2)


@pytest.mark.parametrize("case", CASES)
def test_sums_are_exact_but_for_rounding(case: str) -> None:
    cosines, side = cosines_of(case)
    part, found = WindowSums(cosines, side).rows(slice(0, side))
    assert part == slice(0, side)
    assert found.dtype == np.float32
    assert np.abs(found / exact(cosines, side) - 1).max() < 2e-6
