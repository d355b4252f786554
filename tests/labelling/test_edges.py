"""Refined labels: where edges come to lie, the guided filter against its definition, and confidences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_cosines import objects
from numpy.typing import NDArray

from tipsseg.labelling import edges
from tipsseg.labelling.assign import Assignment, LabelTable, occurring_groups, probabilities
from tipsseg.labelling.edges import REFINEMENT_STEPS, Guide, Steps, match_refined
from tipsseg.labelling.refine import pamr
from tipsseg.labelling.scores import PatchScores, WholeScores, WindowScores
from tipsseg.labelling.sums import Values
from tipsseg.labelling.view import make_plan
from tipsseg.options import GUIDED, Refinement

Pixels = NDArray[np.uint8]


def table_of(groups: int, minimum: float = 0.0) -> LabelTable:
    return LabelTable([1] * groups, np.arange(groups, dtype=np.uint8), np.full(groups, minimum, np.float32), 255)


def smooth(maps: Values, image: Pixels) -> Values:
    refined: Values = pamr(torch.from_numpy(maps), image).numpy()
    return refined


def guide_of(small: Pixels, full: Pixels, steps: Steps) -> Guide:
    return Guide(small=small, full=full if steps.radius else None, steps=steps, pamr=smooth)


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", REFINEMENT_STEPS)
def test_refined_labels_follow_the_colours_and_are_probabilities(mode: str, refine: Refinement) -> None:
    """The boundary of two phrases is 8 pixels off the edge in the picture; refinement moves it there."""
    ramp = np.broadcast_to(np.linspace(1, -1, 8, dtype=np.float32), (8, 8))  # crosses zero in the middle
    cosines = np.stack([ramp, -ramp], 2)[None] * np.float32(0.2)
    plan, size = make_plan((112, 112), 112, 112, 14), (224, 200)
    made: PatchScores = WholeScores(cosines[0], plan.size, 0.1) if mode == "whole" else WindowScores(cosines, plan, 0.1)
    small, full = np.zeros((112, 112, 3), np.uint8), np.zeros((*size, 3), np.uint8)
    small[:, 48:], full[:, 86:] = 255, 255  # the edge of the picture is 8 pixels left of the middle
    refined = match_refined(made, guide_of(small, full, REFINEMENT_STEPS[refine]), size, table_of(2))
    truth = np.broadcast_to(np.arange(200) >= 86, size)
    assert (refined.labels != truth).mean() < 0.01
    assert refined.confidence.min() >= 0.49
    assert refined.confidence.max() <= 1 + 1e-6


def drawn(size: tuple[int, int], model_size: tuple[int, int]) -> tuple[PatchScores, Pixels, Pixels]:
    """Scores of a drawn image, and the image at the model's size and at its own."""
    cosines, plan = objects(model_size, 6, 3)
    colours = np.random.default_rng(4).integers(0, 255, (9, 11, 3)).astype(np.float32)
    maps = torch.from_numpy(colours).permute(2, 0, 1)[None]
    small, full = (
        F.interpolate(maps, shape, mode="bicubic")[0].clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        for shape in (plan.size, size)
    )
    return WindowScores(cosines, plan, 0.05), small, full


def filter_by_definition(values: Values, small: Pixels, full: Pixels, steps: Steps) -> Values:
    """The guided filter, window by window: [h, w] -> [H, W]."""
    (height, width), radius = values.shape, steps.radius
    pad = ((radius, radius), (radius, radius))
    colours = np.pad(small.astype(np.float64) / 255, (*pad, (0, 0)), "symmetric")
    padded = np.pad(values.astype(np.float64), pad, "symmetric")
    found = np.empty((height, width, 4))
    for y in range(height):
        for x in range(width):
            window = slice(y, y + 2 * radius + 1), slice(x, x + 2 * radius + 1)
            inside, targets = colours[window].reshape(-1, 3), padded[window].reshape(-1)
            spread = np.cov(inside.T, bias=True) + steps.epsilon * np.eye(3)
            slopes = np.linalg.solve(spread, (inside * targets[:, None]).mean(0) - inside.mean(0) * targets.mean())
            found[y, x] = *slopes, targets.mean() - slopes @ inside.mean(0)
    around = np.pad(found, (*pad, (0, 0)), "symmetric")
    means = np.array(
        [
            [around[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean((0, 1)) for x in range(width)]
            for y in range(height)
        ]
    )
    maps = torch.from_numpy(means).permute(2, 0, 1)[None]
    large = F.interpolate(maps, full.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    return np.clip((large[:3].transpose(1, 2, 0) * (full / 255)).sum(2) + large[3], 0, 1).astype(np.float32)


def test_the_guided_filter_is_that_of_its_definition() -> None:
    size, steps = (50, 77), Steps(pamr=False, radius=3, epsilon=1e-3)
    scores, small, full = drawn(size, (42, 56))
    groups = occurring_groups(scores, small.shape[:2], [1] * 6)
    maps = probabilities(scores, small.shape[:2], [1] * 6, groups)
    expected = np.stack([filter_by_definition(each, small, full, steps) for each in maps])
    got = match_refined(scores, guide_of(small, full, steps), size, table_of(6))
    best = expected.max(0)
    clear = best - np.sort(expected, 0)[-2] > 1e-4
    assert clear.mean() > 0.95
    assert np.array_equal(got.labels[clear], groups[expected.argmax(0)][clear])
    sharp = best**3 / (best**3 + (1 - best) ** 3)
    assert np.abs(got.confidence - sharp).max() < 1e-3


@pytest.mark.parametrize("refine", REFINEMENT_STEPS)
@pytest.mark.parametrize("size", [(150, 200), (1, 40), (31, 9)])
def test_labels_do_not_depend_on_pieces(
    monkeypatch: pytest.MonkeyPatch, refine: Refinement, size: tuple[int, int]
) -> None:
    scores, small, full = drawn(size, (84, 112))

    def matched() -> Assignment:
        return match_refined(scores, guide_of(small, full, REFINEMENT_STEPS[refine]), size, table_of(6, 0.6))

    expected = matched()
    assert ((expected.labels < 6) | (expected.labels == 255)).all()
    monkeypatch.setattr(edges, "CHUNK", 500)
    monkeypatch.setattr(edges, "_ELEMENTS", 1)  # one map at a time
    got = matched()
    assert np.array_equal(got.labels, expected.labels)
    assert np.array_equal(got.confidence, expected.confidence)


def test_images_are_kept_at_their_own_size_for_guided_filters() -> None:
    assert {refine for refine, steps in REFINEMENT_STEPS.items() if steps.radius} == {*GUIDED}


@pytest.mark.parametrize("refine", GUIDED)
def test_what_is_far_away_changes_no_label(refine: Refinement) -> None:
    """An object beyond the reach of a cell competes neither with its labels nor with their confidence."""
    size, scores, table = (448, 448), [], table_of(3)
    plan = make_plan(size, 224, 224, 14, "whole")
    for shown in (False, True):
        cosines = np.zeros((16, 16, 3), np.float32)
        cosines[:, :8, 0], cosines[:, 8:, 1] = 0.3, 0.3
        cosines[12:, :, 2] = 0.6 * shown
        scores.append(WholeScores(cosines, plan.size, 0.05))
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    steps = Steps(pamr=False, radius=REFINEMENT_STEPS[refine].radius, epsilon=1e-4)
    plain, other = (match_refined(each, guide_of(image[::2, ::2].copy(), image, steps), size, table) for each in scores)
    assert np.array_equal(plain.labels[:120], other.labels[:120])
    assert np.array_equal(plain.confidence[:120], other.confidence[:120])
    assert (other.labels[-60:] == 2).mean() > 0.9
