"""The temperature of confidences that are as often right as they say."""

from __future__ import annotations

import pytest
import torch

from tipsseg.fitting.maths import Window, cell_logits
from tipsseg.fitting.temperature import calibrate


def images(true: float, count: int = 4) -> list[list[Window]]:
    """Windows whose shares are the probabilities at a temperature."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        patches = torch.nn.functional.normalize(torch.randn(8, 8, 3, generator=generator), dim=-1)
        shares = torch.softmax(cell_logits(patches, torch.eye(3), torch.zeros(3)) / true, -1)
        made.append([Window(patches, torch.arange(3), shares)])
    return made


@pytest.mark.parametrize("given", [0.02, 0.1, 0.5])
def test_the_temperature_that_made_the_shares_is_found(given: float) -> None:
    found = calibrate(images(0.1), torch.eye(3), torch.zeros(3), torch.arange(3), given)
    assert found.temperature == pytest.approx(0.1, rel=0.01)
    assert found.after == pytest.approx(0.0, abs=2e-3)
    assert (found.before > 0.02) is (given != 0.1)


def test_a_group_is_as_good_as_its_best_phrase() -> None:
    """A third phrase that is the second again changes nothing where the two are one group."""
    vectors = torch.eye(3)[[0, 1, 2, 2]]
    found = calibrate(images(0.1), vectors, torch.zeros(4), torch.tensor([0, 1, 2, 2]), 0.3)
    assert found.temperature == pytest.approx(0.1, rel=0.01)


def test_one_image_is_not_left_out() -> None:
    assert calibrate(images(0.1, 1), torch.eye(3), torch.zeros(3), torch.arange(3), 0.1).after is None
