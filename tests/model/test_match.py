from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tipsseg import match
from tipsseg.match import WholeScores, WindowScores, Winners, match_refined
from tipsseg.refine import pamr
from tipsseg.windows import WindowPlan, bilinear_taps, plan_windows


@pytest.mark.parametrize(("source", "target"), [(4, 56), (56, 333), (100, 31), (7, 7), (1, 9), (9, 1)])
def test_taps_are_those_of_torch(source: int, target: int) -> None:
    signal = torch.randn(1, 1, source, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(signal, target, mode="linear", align_corners=False)[0, 0].numpy()
    taps = bilinear_taps(source, target)
    values = signal[0, 0].numpy()
    np.testing.assert_allclose(
        values[taps.low] * (1 - taps.weight) + values[taps.high] * taps.weight, expected, atol=1e-5
    )


def random_windows(size: tuple[int, int], phrases: int) -> tuple[torch.Tensor, WindowPlan]:
    plan = plan_windows(size, 56, 56, 14)
    shape = (len(plan.corners), phrases, 4, 4)
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1, plan


@pytest.mark.parametrize("elements", [1, 5000, 10**9], ids=["a row at a time", "some rows", "all at once"])
@pytest.mark.parametrize("size", [(40, 90), (130, 56), (200, 313), (30, 30)])
@pytest.mark.parametrize("groups", [[1] * 9, [2, 1, 4, 2]], ids=["phrases", "groups"])
def test_bands_do_not_change_labels(
    monkeypatch: pytest.MonkeyPatch, elements: int, size: tuple[int, int], groups: list[int]
) -> None:
    cosines, plan = random_windows(size, 9)

    def both() -> tuple[Winners, Winners]:
        windows, whole = WindowScores(cosines, plan, 0.05), WholeScores(cosines[0], 0.05)
        return match.match(windows, size, groups), match.match(whole, size, groups)

    whole = both()
    monkeypatch.setattr(match, "_BAND_ELEMENTS", elements)
    for got, expected in zip(both(), whole, strict=True):
        assert (got.group == expected.group).all()
        np.testing.assert_allclose(got.confidence, expected.confidence, rtol=1e-5)
        assert len(np.unique(got.group)) > 3


def test_confidence_is_a_probability() -> None:
    cosines, plan = random_windows((99, 170), 9)
    winners = match.match(WindowScores(cosines, plan, 0.005), (99, 170), [1] * 9)
    assert winners.confidence.min() >= 1 / 9
    assert winners.confidence.max() <= 1
    assert winners.confidence.dtype == np.float32


def test_a_single_phrase_is_certain() -> None:
    cosines, plan = random_windows((56, 80), 1)
    winners = match.match(WindowScores(cosines, plan, 0.005), (56, 80), [1])
    assert (winners.group == 0).all()
    assert (winners.confidence == 1).all()


GROUPS = [3, 1, 4, 1]
OWNERS = np.repeat(np.arange(4), GROUPS)


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_the_winner_owns_the_best_phrase_and_its_probability_is_among_the_best_of_each(mode: str) -> None:
    size = (120, 77)
    cosines, plan = random_windows(size, 9)

    def match_by(groups: list[int]) -> Winners:
        scores = WholeScores(cosines[0], 0.05) if mode == "whole" else WindowScores(cosines, plan, 0.05)
        return match.match(scores, size, groups)

    apart, together = match_by([1] * 9), match_by(GROUPS)
    assert (together.group == OWNERS[apart.group]).all()
    assert len(np.unique(together.group)) == 4
    # Fewer rivals: merging can only raise the confidence, and does where a group has two good phrases.
    assert (together.confidence >= apart.confidence * (1 - 1e-5)).all()
    assert (together.confidence > apart.confidence * 1.01).mean() > 0.3
    if mode == "whole":
        scores = F.interpolate(cosines[:1], size, mode="bilinear", align_corners=False)[0]
        best = torch.stack([scores[owner == OWNERS].amax(0) for owner in range(4)])
        expected = (best / 0.05).softmax(0).amax(0).numpy()
        np.testing.assert_allclose(together.confidence, expected, rtol=1e-4)


# ---- refinement ----


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_refined_labels_follow_the_colours_and_are_probabilities(mode: str) -> None:
    """Two phrases whose boundary is soft and off by some pixels; the picture knows better."""
    ramp = torch.linspace(1, -1, 8)[None, :].expand(8, 8)  # crosses zero in the middle
    cosines = torch.stack([ramp, -ramp]) * 0.2
    plan = plan_windows((112, 112), 112, 112, 14)
    scores = WholeScores(cosines, 0.1) if mode == "whole" else WindowScores(cosines[None], plan, 0.1)
    image = np.zeros((112, 112, 3), np.uint8)
    image[:, 48:] = 255  # the edge of the picture is 8 pixels left of the middle
    size = (224, 200)
    plain, refined = match.match(scores, size, [1, 1]), match_refined(scores, image, size, [1, 1])
    truth = np.arange(200)[None, :] * 112 // 200 >= 48
    assert (plain.group != truth).mean() > 0.05
    assert (refined.group != truth).mean() < 0.01
    assert refined.confidence.min() >= 0.499
    assert refined.confidence.max() <= 1 + 1e-6
    assert refined.group.dtype == np.int32


def test_only_what_occurs_is_refined_and_in_any_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (90, 130)
    cosines, plan = random_windows(size, 9)
    scores = WindowScores(cosines, plan, 0.05)
    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (*plan.size, 3), np.uint8)
    seen = []

    def spy(maps: torch.Tensor, picture: np.ndarray) -> torch.Tensor:
        seen.append(len(maps))
        return pamr(maps, picture)

    monkeypatch.setattr(match, "pamr", spy)
    groups = [2, 1, 4, 1, 1]
    occurring = len(np.unique(match.match(scores, plan.size, groups).group))
    expected = match_refined(scores, image, size, groups)
    assert seen == [occurring]
    monkeypatch.setattr(match, "_REFINED_ELEMENTS", 2 * plan.size[0] * plan.size[1])
    monkeypatch.setattr(match, "_BAND_ELEMENTS", 3000)
    got = match_refined(scores, image, size, groups)
    assert seen[1:] == [2, 2, 1][: -(-occurring // 2)]
    assert (got.group == expected.group).mean() > 0.999
    np.testing.assert_allclose(got.confidence, expected.confidence, atol=1e-5)


@pytest.mark.parametrize("size", [(56, 56), (56, 150), (150, 64), (90, 77)])
def test_windows_count_by_their_mean_probability(size: tuple[int, int]) -> None:
    """The merging once more, with whole maps; labels and confidence follow from the same numbers."""
    temperature = 0.05
    cosines, plan = random_windows(size, 9)
    total, count = torch.zeros(9, *plan.size), torch.zeros(plan.size)
    for cosine, (top, left) in zip(cosines, plan.corners, strict=True):
        window = slice(top, top + plan.side), slice(left, left + plan.side)
        large = F.interpolate(cosine[None], (plan.side, plan.side), mode="bilinear", align_corners=False)[0]
        total[:, *window] += large.softmax(0)
        count[window] += 1
    mean = F.interpolate((total / count)[None], size, mode="bilinear", align_corners=False)[0]  # [P, H, W]
    got = match.match(WindowScores(cosines, plan, temperature), size, [1] * 9)
    assert (got.group == mean.argmax(0).numpy()).mean() > 0.999
    expected = (mean.log() / temperature).softmax(0).amax(0).numpy()
    np.testing.assert_allclose(got.confidence, expected, rtol=1e-3)


def test_a_band_holds_no_more_scores_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    whole = match.merge_names

    def spy(scores: torch.Tensor, groups: list[int]) -> torch.Tensor:
        held.append(scores.numel())
        return whole(scores, groups)

    monkeypatch.setattr(match, "merge_names", spy)
    monkeypatch.setattr(match, "_BAND_ELEMENTS", 5000)
    cosines, plan = random_windows((60, 90), 9)
    match.match(WindowScores(cosines, plan, 0.05), (60, 90), [1] * 9)
    assert 10 <= len(held) < 60  # at most 5000 / (9 * 90) = 6 rows each
    assert max(held) <= 5000


def test_what_occurs_is_told_at_the_size_that_is_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at that of the labels, where a small part may vanish before the refinement could draw it."""
    cosines, plan = random_windows((90, 130), 9)
    scores = WindowScores(cosines, plan, 0.05)
    seen = []

    def spy(maps: torch.Tensor, picture: np.ndarray) -> torch.Tensor:
        seen.append(len(maps))
        return pamr(maps, picture)

    monkeypatch.setattr(match, "pamr", spy)
    match_refined(scores, np.zeros((*plan.size, 3), np.uint8), (2, 2), [1] * 9)
    assert seen == [len(np.unique(match.match(scores, plan.size, [1] * 9).group))]
    assert seen[0] > 4


@pytest.mark.parametrize("size", [(2, 130), (7, 20), (300, 40)])
def test_a_band_is_not_made_of_too_many_rows_of_the_source(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """Labels that are smaller than the working size: few rows of them, but many that they come from."""
    cosines, plan = random_windows((200, 330), 9)
    scores = WindowScores(cosines, plan, 0.05)
    expected = match.match(scores, size, [1] * 9)
    taken = []
    rows = WindowScores.rows

    def spy(self: WindowScores, first: int, last: int) -> torch.Tensor:
        taken.append(last - first)
        return rows(self, first, last)

    monkeypatch.setattr(WindowScores, "rows", spy)
    bound = 9 * plan.size[1] * 6  # six rows of the source
    monkeypatch.setattr(match, "_BAND_ELEMENTS", bound)
    got = match.match(scores, size, [1] * 9)
    assert (got.group == expected.group).all()
    assert max(taken) * 9 * plan.size[1] <= bound
    assert len(taken) > 1 or size[0] == 2
