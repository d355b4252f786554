"""Each class as if it were the only one: what the shortcuts leave out changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_cosines import objects, random_windows
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tipsseg.labelling.alone import ClassContest, label_alone
from tipsseg.labelling.assign import LabelTable, match
from tipsseg.labelling.edges import REFINEMENT_STEPS, Guide, match_refined
from tipsseg.labelling.refine import pamr
from tipsseg.labelling.scores import make_scores
from tipsseg.labelling.sums import Values
from tipsseg.regions.objects import Layer, count_pixels, make_layers, paint_confidence, paint_layers
from tipsseg.types import WindowPlan

#: Classes of one, two and three phrases; phrases from 10 on are background.
OWN = ([0], [1, 2], [3], [4, 5, 6], [7], [8, 9])


def contests(phrases: int, dropped: bool, min_confidence: float = 0) -> list[ClassContest]:
    """With `dropped`, each class lacks another one of the background phrases."""
    made = []
    for number, own in enumerate(OWN):
        background = [each for each in range(10, phrases) if not dropped or each % len(OWN) != number or phrases < 17]
        table = LabelTable(
            [len(own), len(background)],
            np.array([1, 0], np.uint8),
            np.full(2, min_confidence, np.float32),
            255,
        )
        made.append(ClassContest(class_id=number + 1, phrases=np.array([*own, *background]), table=table))
    return made


def check(
    all_contests: list[ClassContest],
    cosines: list[Values],
    plans: list[WindowPlan],
    temperature: float,
    size: tuple[int, int],
) -> int:
    """Compare with each contest by itself; returns the number of pixels that classes have."""
    layers = {layer.region.class_id: layer for layer in label_alone(all_contests, cosines, plans, temperature, size)}
    pixels = 0
    for contest in all_contests:
        scores = make_scores([np.take(scale, contest.phrases, -1) for scale in cosines], plans, temperature)
        alone = match(scores, size, contest.table)
        own = alone.labels == 1
        pixels += int(own.sum())
        assert own.any() == (contest.class_id in layers)
        if own.any():
            layer = layers[contest.class_id]
            assert np.array_equal(layer.mask(size), own)
            assert np.array_equal(layer.confidence_map(size)[own], alone.confidence[own])
    return pixels


@settings(max_examples=60)
@example(size=(4, 1), phrases=11, temperature=0.004, drawn=False, dropped=False, seed=0)  # smaller than the grid
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)).filter(lambda size: max(size) < 6 * min(size)),
    phrases=st.integers(11, 40),
    temperature=st.sampled_from([0.004, 0.05]),
    drawn=st.booleans(),
    dropped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_labels_are_those_of_a_run_alone(
    size: tuple[int, int], phrases: int, temperature: float, drawn: bool, dropped: bool, seed: int
) -> None:
    cosines, plan = objects(size, phrases, seed) if drawn else random_windows(size, phrases, 0.1)
    check(contests(phrases, dropped, 0.4 * dropped), [cosines], [plan], temperature, size)


@pytest.mark.parametrize("whole", [False, True])
def test_several_scales_and_whole_images(whole: bool) -> None:
    size = (150, 210)
    coarse, plan = objects(size, 20, 1)
    if whole:
        plan = WindowPlan(plan.size, 0, ())
        assert check(contests(20, dropped=True), [coarse[:1]], [plan], 0.02, size) > 0
        return
    fine, fine_plan = objects((300, 420), 20, 1)
    assert check(contests(20, dropped=True), [coarse, fine], [plan, fine_plan], 0.02, size) > 0


def test_refined_labels_are_those_of_a_run_alone() -> None:
    import torch

    size = (120, 160)
    cosines, plan = objects(size, 24, 2)
    image = np.random.default_rng(1).integers(0, 255, (*size, 3)).astype(np.uint8)

    def refine(maps: Values, picture: np.ndarray) -> Values:
        refined: Values = pamr(torch.from_numpy(maps), picture).numpy()
        return refined

    guide = Guide(small=image, full=None, steps=REFINEMENT_STEPS["pamr"], pamr=refine)
    made = contests(24, dropped=True)
    layers = {each.region.class_id: each for each in label_alone(made, [cosines], [plan], 0.02, size, guide)}
    for contest in made:
        scores = make_scores([np.take(cosines, contest.phrases, -1)], [plan], 0.02)
        alone = match_refined(scores, guide, size, contest.table)
        own = alone.labels == 1
        assert own.any() == (contest.class_id in layers)
        if own.any():
            assert np.array_equal(layers[contest.class_id].mask(size), own)


# ---- layers ----


def layer(class_id: int, *pixels: tuple[int, int], confidence: float = 0.5) -> Layer:
    mask = np.zeros((3, 4), np.bool_)
    for place in pixels:
        mask[place] = True
    (made,) = make_layers(class_id, mask, np.full((3, 4), confidence, np.float32))
    return made


def test_smaller_layers_are_on_top() -> None:
    large = layer(1, (0, 0), (0, 1), (1, 1), (2, 3), confidence=0.9)
    small = layer(2, (0, 1), (1, 2), confidence=0.7)
    same = layer(3, (1, 2), (2, 3), confidence=0.6)
    layers = [large, small, same]
    labels = paint_layers(layers, (3, 4), 3)
    assert labels.tolist() == [[1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 0, 3]]
    shown = [[0.9, 0.7, 0, 0], [0, 0.9, 0.7, 0], [0, 0, 0, 0.6]]
    assert np.allclose(paint_confidence(layers, (3, 4)), shown)
    assert count_pixels(labels, (), layers)[:5].tolist() == [7, 4, 2, 2, 0]
    assert count_pixels(labels, (), None)[:5].tolist() == [7, 2, 2, 1, 0]
    assert make_layers(1, np.zeros((3, 4), np.bool_)) == []


def test_layers_hold_more_classes_than_eight_bits() -> None:
    wide = layer(300, (2, 0), (2, 1))
    assert wide.labels((3, 4)).dtype == np.uint16
    assert paint_layers([wide], (3, 4), 300).max() == 300
    assert wide.region.box == (2, 0, 1, 2)
    assert wide.mask((3, 4)).sum() == wide.region.area == 2
