"""Images at several scales: scores are the mean of log-probabilities, whatever way the scales come to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tipsseg import ClassSpec, Features, Labeller, LabelMap, LabelOptions, Model, UsageError, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling.assign import LabelTable, best_groups, match
from tipsseg.labelling.golden import draw_picture
from tipsseg.labelling.scores import PatchScores, make_scores
from tipsseg.labelling.sums import Values
from tipsseg.labelling.view import make_plan
from tipsseg.options import Mode
from tipsseg.types import WindowPlan

TEMPERATURE = 0.05

#: The cosines of one scale, [B, h, w, P], and its plan.
Scale = tuple[Values, WindowPlan]


def drawn(
    size: tuple[int, int], sides: Sequence[int], phrases: int, mode: Mode, seed: int, *, alike: bool = False
) -> list[Scale]:
    """Cosines at several short sides. `alike`: of objects with straight edges that all scales see; else all is at random."""
    rng = np.random.default_rng(seed)
    places, shown = rng.random((5, 2)), rng.integers(0, phrases, 5)
    scales = []
    for side in sides:
        plan = make_plan(size, 56, side, 14, mode)
        grid = (plan.side // 14,) * 2 if plan.corners else tuple(max(length // 14, 1) for length in plan.size)
        windows = []
        for top, left in plan.corners or ((0, 0),):
            values = rng.random((*grid, phrases), np.float32) * 2 - 1
            if alike:
                y, x = np.mgrid[top + 7 : top + 14 * grid[0] : 14, left + 7 : left + 14 * grid[1] : 14]
                at = places * plan.size
                nearest = np.hypot(y[..., None] - at[:, 0], x[..., None] - at[:, 1]).argmin(2)
                values = np.eye(phrases, dtype=np.float32)[shown[nearest]] * np.float32(0.2) + values * np.float32(0.02)
            windows.append(values)
        scales.append((np.stack(windows), plan))
    return scales


def scores_of(scales: Sequence[Scale]) -> PatchScores:
    return make_scores([values for values, _ in scales], [plan for _, plan in scales], TEMPERATURE)


def table_of(groups: Sequence[int]) -> LabelTable:
    return LabelTable(groups, np.arange(len(groups), dtype=np.uint16), np.zeros(len(groups), np.float32), 0)


def exact(scales: Sequence[Scale], size: tuple[int, int]) -> NDArray[np.float64]:
    """The mean of the logits once more, by torch's own resizing of whole maps in double precision: [P, H, W]."""

    def resized(maps: torch.Tensor, to: tuple[int, ...]) -> torch.Tensor:
        return F.interpolate(maps[None], to, mode="bilinear", align_corners=False)[0]

    finest = scales[-1]
    grid = finest[0].shape[1:3] if finest[1].whole else finest[1].size
    total = torch.zeros(finest[0].shape[3], *grid, dtype=torch.double)
    for values, plan in scales:
        maps = torch.from_numpy(values).double().permute(0, 3, 1, 2)
        if plan.whole:
            total += resized(maps[0], grid)
            continue
        scores, count = torch.zeros(maps.shape[1], *plan.size, dtype=torch.double), torch.zeros(plan.size)
        for each, (top, left) in zip(maps, plan.corners, strict=True):
            window = slice(top, top + plan.side), slice(left, left + plan.side)
            scores[:, *window] += resized(each, (plan.side, plan.side)).softmax(0)
            count[window] += 1
        total += resized(scores / count, grid).log()
    found: NDArray[np.float64] = resized(total / len(scales), size).numpy()
    return found


SIZES = st.tuples(st.integers(1, 180), st.integers(1, 180)).filter(lambda size: max(size) < 6 * min(size))
SIDES = st.lists(st.integers(28, 130), min_size=2, max_size=3, unique=True).map(sorted)


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(["slide", "whole"]),
    size=SIZES,
    sides=SIDES,
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    seed=st.integers(0, 9),
    alike=st.booleans(),
)
def test_labels_are_those_of_whole_maps(
    mode: Mode, size: tuple[int, int], sides: Sequence[int], groups: Sequence[int], seed: int, alike: bool
) -> None:
    scales = drawn(size, sides, sum(groups), mode, seed, alike=alike)
    maps = np.split(exact(scales, size), np.cumsum(groups)[:-1])
    expected = np.stack([part.max(0) for part in maps])
    got = match(scores_of(scales), size, table_of(groups))
    own = np.take_along_axis(expected, got.labels.astype(np.intp)[None], 0)[0]
    assert (expected.max(0) - own < 1e-5).all()


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("size", [(90, 177), (30, 41)])
def test_scores_are_the_mean_of_log_probabilities(mode: Mode, size: tuple[int, int]) -> None:
    scales = drawn(size, (42, 56, 98), 7, mode, 3)
    expected = exact(scales, size)
    got = match(scores_of(scales), size, table_of([1] * 7))
    best = np.take_along_axis(expected, got.labels.astype(np.intp)[None], 0)[0]
    assert (expected.max(0) - best < 1e-5).all()
    assert len(np.unique(got.labels)) > 3
    shares = torch.from_numpy(expected / TEMPERATURE).softmax(0).amax(0).numpy()
    np.testing.assert_allclose(got.confidence, shares, rtol=2e-3)
    index, share = best_groups(scores_of(scales), (4, 5), [1] * 7, 3)
    coarse = torch.from_numpy(exact(scales, (4, 5)) / TEMPERATURE).softmax(0).sort(0, descending=True)
    np.testing.assert_allclose(share.astype(np.float64), coarse.values[:3].numpy(), atol=2e-3)
    assert (index[0] == coarse.indices[0].numpy()).mean() > 0.9


# ---- the model ----


@pytest.fixture(scope="module")
def model(mlp_checkpoint: Path) -> Model:
    return Model(Tipsv2Backbone(mlp_checkpoint, "cpu", "float32"))


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return draw_picture(90, 130)


def labeller_of(model: Model, scales: Sequence[float], *entries: str | ClassSpec, **options: object) -> Labeller:
    vocabulary = make_vocabulary(entries or ("tree", "road", "sky"), "none")
    return Labeller(model, vocabulary, LabelOptions(scales=tuple(scales), **options))  # type: ignore[arg-type]


def same(one: LabelMap, other: LabelMap) -> bool:
    return bool((one.labels == other.labels).all() and (one.confidence == other.confidence).all())


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", ["none", "pamr"])
def test_one_scale_is_a_short_side(model: Model, image: NDArray[np.uint8], mode: Mode, refine: str) -> None:
    side = model.backbone.native_size * 3 // 2
    plain = labeller_of(model, (1,), mode=mode, refine=refine, short_side=side)
    assert same(labeller_of(model, (1.5,), mode=mode, refine=refine).label(image), plain.label(image))


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", ["none", "pamr"])
def test_labels_are_the_same_whatever_they_come_from(
    model: Model, image: NDArray[np.uint8], mode: Mode, refine: str
) -> None:
    scales = (0.75, 1.0, 1.75)
    labeller = labeller_of(model, scales, mode=mode, refine=refine)
    found = labeller.label(image)
    assert not same(found, labeller_of(model, (1,), mode=mode, refine=refine).label(image))
    features = model.encode(image, mode=mode, scales=(1.75, 0.75, 1))
    assert [each.plan for each in features.scales] == list(labeller.view.plans(image.shape[:2]))
    assert same(labeller.label(features, guide=image), found)
    alone = [model.encode(image, mode=mode, scales=(scale,)) for scale in scales]
    assert same(labeller.label(Features.at_scales(alone), guide=image), found)
    other = draw_picture(40, 61)
    many = list(labeller.label_many([other, image, other]))
    assert same(many[1], found)
    assert same(many[0], many[2])


def test_features_of_other_scales_are_refused(model: Model, image: NDArray[np.uint8]) -> None:
    labeller = labeller_of(model, (1, 1.75))
    with pytest.raises(UsageError, match=r"the image was encoded at 56 x 80 .* expects 56 x 80 and 98 x 141"):
        labeller.label(model.encode(image))
    with pytest.raises(UsageError, match="the image was encoded at 56 x 80 and 98 x 141"):
        labeller_of(model, (1,)).label(model.encode(image, scales=(1, 1.75)))


def test_a_file_holds_one_scale(model: Model, image: NDArray[np.uint8], tmp_path: Path) -> None:
    features = model.encode(image, scales=(1, 1.75))
    with pytest.raises(UsageError, match="the features have 2 scales, but a file stores only one"):
        features.save(tmp_path / "both.safetensors")
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path, each in zip(paths, features.scales, strict=True):
        (replace(each, finer=())).save(path, "float32")
    read = Features.at_scales([Features.load(path) for path in paths])
    labeller = labeller_of(model, (1, 1.75))
    assert same(labeller.label(read), labeller.label(image))
