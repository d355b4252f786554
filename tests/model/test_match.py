from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tipsseg import match
from tipsseg.match import Winners, match_whole, match_windows
from tipsseg.windows import bilinear_taps, plan_windows


@pytest.mark.parametrize(("source", "target"), [(4, 56), (56, 333), (100, 31), (7, 7), (1, 9), (9, 1)])
def test_taps_are_those_of_torch(source: int, target: int) -> None:
    signal = torch.randn(1, 1, source, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(signal, target, mode="linear", align_corners=False)[0, 0].numpy()
    taps = bilinear_taps(source, target)
    values = signal[0, 0].numpy()
    np.testing.assert_allclose(
        values[taps.low] * (1 - taps.weight) + values[taps.high] * taps.weight, expected, atol=1e-5
    )


def random_windows(size: tuple[int, int], phrases: int) -> tuple[torch.Tensor, object]:
    plan = plan_windows(size, 56, 56, 14)
    shape = (len(plan.corners), phrases, 4, 4)
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1, plan


@pytest.mark.parametrize("elements", [1, 5000, 10**9], ids=["a row at a time", "some rows", "all at once"])
@pytest.mark.parametrize("size", [(40, 90), (130, 56), (200, 313), (30, 30)])
def test_bands_do_not_change_labels(monkeypatch: pytest.MonkeyPatch, elements: int, size: tuple[int, int]) -> None:
    cosines, plan = random_windows(size, 9)

    def both() -> tuple[Winners, Winners]:
        return match_windows(cosines, plan, size, 0.05), match_whole(cosines[0], size, 0.05)  # type: ignore[arg-type]

    whole = both()
    monkeypatch.setattr(match, "_BAND_ELEMENTS", elements)
    for got, expected in zip(both(), whole, strict=True):
        assert (got.phrase == expected.phrase).all()
        np.testing.assert_allclose(got.confidence, expected.confidence, rtol=1e-5)
        assert len(np.unique(got.phrase)) > 3


def test_confidence_is_a_probability() -> None:
    cosines, plan = random_windows((99, 170), 9)
    winners = match_windows(cosines, plan, (99, 170), 0.005)  # type: ignore[arg-type]
    assert winners.confidence.min() >= 1 / 9
    assert winners.confidence.max() <= 1
    assert winners.confidence.dtype == np.float32


def test_a_single_phrase_is_certain() -> None:
    cosines, plan = random_windows((56, 80), 1)
    winners = match_windows(cosines, plan, (56, 80), 0.005)  # type: ignore[arg-type]
    assert (winners.phrase == 0).all()
    assert (winners.confidence == 1).all()
