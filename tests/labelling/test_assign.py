from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_cosines import objects, random_windows
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.labelling import assign as match
from tipsseg.labelling import sums, winners
from tipsseg.labelling.assign import (
    Assignment,
    LabelTable,
    best_groups,
    occurring_groups,
)
from tipsseg.labelling.scores import PatchScores, WholeScores, WindowScores
from tipsseg.labelling.sums import Values
from tipsseg.types import WindowPlan


def scores_of(mode: str, cosines: Values, plan: WindowPlan, temperature: float) -> PatchScores:
    whole = mode == "whole"
    return WholeScores(cosines[0], plan.size, temperature) if whole else WindowScores(cosines, plan, temperature)


def table_of(groups: Sequence[int]) -> LabelTable:
    """Each group is the class of its number."""
    return LabelTable(groups, np.arange(len(groups), dtype=np.uint16), np.zeros(len(groups), np.float32), 0)


def matched(made: PatchScores, size: tuple[int, int], groups: Sequence[int]) -> Assignment:
    return match.match(made, size, table_of(groups))


def weights_of(plan: WindowPlan) -> torch.Tensor:
    """The weight of each pixel of a window, [side, side]."""
    places = torch.arange(plan.side) + 0.5
    axis = (torch.minimum(places, plan.side - places) / plan.fade).clamp(max=1) if plan.fade else torch.ones(plan.side)
    return axis[:, None] * axis


def plain_scores(mode: str, cosines: Values, plan: WindowPlan, size: tuple[int, int]) -> torch.Tensor:
    """The merging once more, with whole maps of all phrases, by torch's own resizing and softmax: [P, H, W]."""
    if mode == "whole":
        maps = torch.from_numpy(cosines[:1]).permute(0, 3, 1, 2)
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]
    total, count = torch.zeros(cosines.shape[3], *plan.size), torch.zeros(plan.size)
    for cosine, (top, left) in zip(torch.from_numpy(cosines), plan.corners, strict=True):
        window = slice(top, top + plan.side), slice(left, left + plan.side)
        maps = cosine.permute(2, 0, 1)[None]
        large = F.interpolate(maps, (plan.side, plan.side), mode="bilinear", align_corners=False)[0]
        total[:, *window] += large.softmax(0) * weights_of(plan)
        count[window] += weights_of(plan)
    return F.interpolate((total / count)[None], size, mode="bilinear", align_corners=False)[0]


MODES = pytest.mark.parametrize("mode", ["slide", "whole"])
GROUPS = [3, 1, 4, 1]
OWNERS = np.repeat(np.arange(4), GROUPS)


# ---- the protocol's labels ----


@MODES
@pytest.mark.parametrize("size", [(150, 64), (30, 30), (300, 410)])
def test_labels_and_confidence_are_those_of_whole_maps(mode: str, size: tuple[int, int]) -> None:
    temperature = 0.05
    cosines, plan = random_windows(size, 9)
    got = matched(scores_of(mode, cosines, plan, temperature), size, [1] * 9)
    expected = plain_scores(mode, cosines, plan, size)
    best = expected.topk(2, dim=0)
    differs = got.labels != best.indices[0].numpy()
    assert not (differs & ((best.values[0] - best.values[1]).numpy() > 1e-6)).any()
    assert differs.mean() < 1e-3
    assert len(np.unique(got.labels)) > 3
    logits = expected if mode == "whole" else expected.log()
    shares = (logits / temperature).softmax(0).amax(0).numpy()
    assert np.abs(got.confidence - shares).max() < 0.01
    if max(size) <= 150:  # few tiles, in which every phrase may win
        np.testing.assert_allclose(got.confidence, shares, rtol=1e-4)


@settings(max_examples=60)
@given(
    mode=st.sampled_from(["slide", "whole"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)).filter(lambda size: max(size) < 6 * min(size)),
    phrases=st.integers(1, 60),
    temperature=st.sampled_from([0.004, 0.05]),
    alike=st.booleans(),
    fade=st.sampled_from([0, 7]),
    seed=st.integers(0, 9),
)
def test_leaving_out_what_cannot_win_changes_no_label(
    mode: str, size: tuple[int, int], phrases: int, temperature: float, alike: bool, fade: int, seed: int
) -> None:
    cosines, plan = objects(size, phrases, seed) if alike else random_windows(size, phrases)
    plan = replace(plan, fade=fade)
    got = matched(scores_of(mode, cosines, plan, temperature), size, [1] * phrases)
    expected = plain_scores(mode, cosines, plan, size).numpy()
    own = np.take_along_axis(expected, got.labels.astype(np.intp)[None], 0)[0]
    assert (expected.max(0) - own <= 2e-6).all()


@MODES
@pytest.mark.parametrize("elements", [1, 5000], ids=["a row at a time", "some rows"])
@pytest.mark.parametrize("size", [(40, 90), (200, 313)])
def test_bands_do_not_change_labels(
    monkeypatch: pytest.MonkeyPatch, mode: str, elements: int, size: tuple[int, int]
) -> None:
    cosines, plan = random_windows(size, 9)
    expected = matched(scores_of(mode, cosines, plan, 0.05), size, GROUPS)
    for module, name in ((match, "CHUNK"), (winners, "CHUNK"), (sums, "_CHUNK")):
        monkeypatch.setattr(module, name, elements)
    got = matched(scores_of(mode, cosines, plan, 0.05), size, GROUPS)
    assert (got.labels == expected.labels).all()
    # Tiles are cut up by the same measure, and the confidence is resized from other phrases in smaller ones.
    assert np.abs(got.confidence - expected.confidence).mean() < 2e-4
    assert len(np.unique(got.labels)) > 2


# ---- confidence and groups ----


def test_low_confidence_is_ignored_class_by_class() -> None:
    cosines, plan = random_windows((90, 130), 9, 0.1)
    made = WindowScores(cosines, plan, 0.05)
    plain = matched(made, (90, 130), [1] * 9)
    least = np.array([0.2, 0.5, 0.3, 0, 1, 0.25, 0.2, 0.2, 0.2], np.float32)
    got = match.match(made, (90, 130), LabelTable([1] * 9, np.arange(9, dtype=np.uint8), least, 255))
    ignored = plain.confidence < least[plain.labels]
    assert 0.1 < ignored.mean() < 0.9
    assert (got.labels == np.where(ignored, 255, plain.labels)).all()


@MODES
def test_a_class_with_synonyms_has_the_score_of_its_best_phrase(mode: str) -> None:
    size = (120, 77)
    cosines, plan = random_windows(size, 9)
    made = scores_of(mode, cosines, plan, 0.05)
    apart, together = matched(made, size, [1] * 9), matched(made, size, GROUPS)
    assert (together.labels == OWNERS[apart.labels]).all()
    assert len(np.unique(together.labels)) == 4
    # Fewer rivals: merging can only raise the confidence, and does where a group has two good phrases.
    assert (together.confidence >= apart.confidence * (1 - 1e-5)).all()
    assert (together.confidence > apart.confidence * 1.01).mean() > 0.3
    expected = plain_scores(mode, cosines, plan, size)
    logits = expected if mode == "whole" else expected.log()
    best = torch.stack([logits[owner == OWNERS].amax(0) for owner in range(4)])
    shares = (best / 0.05).softmax(0).amax(0).numpy()
    np.testing.assert_allclose(together.confidence, shares, rtol=1e-4)


def test_the_best_groups_of_a_grid() -> None:
    cosines, plan = random_windows((90, 130), 9)
    index, share = best_groups(WindowScores(cosines, plan, 0.05), (6, 9), GROUPS, 3)
    logits = plain_scores("slide", cosines, plan, (6, 9)).log()
    best = torch.stack([logits[owner == OWNERS].amax(0) for owner in range(4)])
    expected = (best / 0.05).softmax(0).sort(dim=0, descending=True, stable=True)
    assert (index == expected.indices[:3].numpy()).all()
    np.testing.assert_allclose(share, expected.values[:3].numpy(), atol=1e-3)


def test_more_groups_than_a_byte_holds_occur() -> None:
    cosines, plan = random_windows((90, 130), 2)
    many = np.concatenate([np.full((*cosines.shape[:3], 298), -1, np.float32), cosines], 3)
    assert occurring_groups(WindowScores(many, plan, 0.05), (90, 130), [1] * 300).tolist() == [298, 299]


def test_ties_go_to_the_first_phrase() -> None:
    cosines, plan = random_windows((90, 130), 4)
    twice = np.concatenate([cosines, cosines], 3)
    made = WindowScores(twice, plan, 0.05)
    assert matched(made, (90, 130), [1] * 8).labels.max() == 3
    index, share = best_groups(made, (6, 9), [1] * 8, 2)
    assert (index[1] == index[0] + 4).all()
    assert (share[0] == share[1]).all()
