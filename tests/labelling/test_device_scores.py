"""Scoring on a device, here with torch on the CPU: its labels are those of the protocol in double precision.

What "exact but for ties within rounding" means: where two label maps differ, the plain scores of both labels, in double precision,
are less than _TIE of each other. Where a minimum confidence decides, the exact confidence is within _CONFIDENCE of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

import tipsseg
from tipsseg import ClassSpec, Features, Labeller, Model, make_vocabulary
from tipsseg.errors import DeviceError
from tipsseg.labelling import device_scores, labeller
from tipsseg.labelling.assign import Assignment, LabelTable, ReadyContest, best_groups
from tipsseg.labelling.device_scores import DeviceScorer
from tipsseg.labelling.golden import draw_picture
from tipsseg.labelling.scores import WholeScores, WindowScores
from tipsseg.labelling.view import make_plan
from tipsseg.options import Mode
from tipsseg.types import LabelArray, WindowPlan, label_dtype

CPU = torch.device("cpu")

#: The lengths of features that are unit vectors.
UNIT = torch.ones(1, 2)

#: Scores are equal but for rounding where they differ by less than this part of the larger: 16 roundings of float32.
_TIE = 16 * 2.0**-24

#: How far, as a part of it, a confidence may be off: half a step of 16 bits, and the rounding of a score over the temperature.
_STEP = 2.0**-11


def off(temperature: float) -> float:
    return _STEP + _TIE / temperature


def drawn(size: tuple[int, int], phrases: int, mode: Mode, seed: int, spread: float) -> tuple[torch.Tensor, WindowPlan]:
    """Cosines [B, h, w, P] in which nothing that a patch says is said by the next."""
    plan = make_plan(size, 56, 56, 14, mode)
    shape = (len(plan.corners), 4, 4) if plan.corners else (1, *(max(side // 14, 1) for side in plan.size))
    values = np.random.default_rng(seed).random((*shape, phrases), np.float32) * 2 - 1
    return torch.from_numpy(values * np.float32(spread)), plan


def table_of(groups: Sequence[int], least: float = 0.0) -> LabelTable:
    """Each group is the class of its number, from 1 on; every third has a minimum confidence of its own."""
    count = len(groups)
    ids = cast(LabelArray, np.arange(1, count + 1, dtype=label_dtype(count)))
    minimum = np.full(count + 1, least, np.float32)
    minimum[::3] *= 0.5
    return LabelTable(groups, ids, minimum, 255 if ids.dtype == np.uint8 else 65535)


@dataclass(frozen=True)
class Exact:
    """By torch's own resizing of whole maps, in double precision: scores and confidences of the groups, [G, H, W] each."""

    scores: NDArray[np.float64]
    confidence: NDArray[np.float64]


def weights_of(plan: WindowPlan) -> torch.Tensor:
    """The weight of each pixel of a window, [side, side]."""
    places = torch.arange(plan.side) + 0.5
    axis = (torch.minimum(places, plan.side - places) / plan.fade).clamp(max=1) if plan.fade else torch.ones(plan.side)
    return axis[:, None] * axis


def exact(
    cosines: torch.Tensor, plan: WindowPlan, size: tuple[int, int], groups: Sequence[int], temperature: float
) -> Exact:
    def resized(maps: torch.Tensor, to: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(maps[None], to, mode="bilinear", align_corners=False)[0]

    maps = cosines.double().permute(0, 3, 1, 2)
    if plan.whole:
        scores = resized(maps[0], size)
    else:
        total, count = torch.zeros(maps.shape[1], *plan.size, dtype=torch.double), torch.zeros(plan.size)
        for each, (top, left) in zip(maps, plan.corners, strict=True):
            window = slice(top, top + plan.side), slice(left, left + plan.side)
            total[:, *window] += resized(each, (plan.side, plan.side)).softmax(0) * weights_of(plan)
            count[window] += weights_of(plan)
        scores = resized(total / count, size)
    merged = torch.stack([part.amax(0) for part in scores.split(list(groups))])
    logits = merged if plan.whole else merged.log()
    return Exact(merged.numpy(), (logits / temperature).softmax(0).numpy())


def on_device(
    cosines: torch.Tensor, plan: WindowPlan, size: tuple[int, int], table: LabelTable, temperature: float
) -> Assignment:
    done = DeviceScorer(table, temperature, CPU).send([cosines], [plan], size, UNIT).wait()
    assert done is not None
    assert done[1] is None
    return done[0]


def check(got: Assignment, wanted: Exact, table: LabelTable, temperature: float) -> None:
    """The labels are those of the exact scores, and the confidence is theirs."""
    best = wanted.scores.max(0)
    sure = wanted.confidence.max(0)
    ignored = got.labels == table.ignore
    index = np.where(ignored, 0, got.labels.astype(np.intp) - 1)[None]
    own = np.take_along_axis(wanted.scores, index, 0)[0]
    assert ((best - own <= _TIE * np.abs(best)) | ignored).all()
    confidence = got.confidence.astype(np.float64)
    assert (np.abs(confidence - sure) <= off(temperature) * sure + 2.0**-24).all()
    least = table.min_confidence[np.where(ignored, wanted.scores.argmax(0) + 1, got.labels)]
    near = np.abs(sure - least) <= off(temperature) * sure
    tied = np.sort(wanted.scores, 0)[-2] >= best * (1 - _TIE) if len(wanted.scores) > 1 else np.zeros(best.shape, bool)
    assert (near | tied | (ignored == (sure < least))).all()


SYNONYMS = [3, 1, 1, 4, 1, 2, 2, 9]


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize(
    ("size", "groups", "spread"),
    [
        pytest.param((56, 56), [1], 1, id="one class"),
        pytest.param((90, 130), [1] * 150, 0.1, id="150 classes"),
        pytest.param((40, 42), [1] * 1000, 0.2, id="1000 classes in 16 bits"),
        pytest.param((90, 130), SYNONYMS, 0.1, id="synonyms"),
        pytest.param((1, 1), [1] * 9, 0.1, id="a pixel"),
    ],
)
def test_labels_and_confidence(
    size: tuple[int, int], groups: list[int], spread: float, least: float, mode: Mode
) -> None:
    temperature = 0.05
    table = table_of(groups, least)
    cosines, plan = drawn(size, sum(groups), mode, 3, spread)
    got = on_device(cosines, plan, size, table, temperature)
    wanted = exact(cosines, plan, size, groups, temperature)
    check(got, wanted, table, temperature)
    if groups == SYNONYMS and least:
        assert 0.01 < (got.labels == table.ignore).mean() < 1
    if size == (90, 77) and not least:
        assert len(np.unique(got.labels)) > 5


@settings(max_examples=25)
@given(
    mode=st.sampled_from(["slide", "whole"]),
    size=st.tuples(st.integers(1, 110), st.integers(1, 110)).filter(lambda size: max(size) < 6 * min(size)),
    groups=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    temperature=st.sampled_from([0.004, 0.05]),
    least=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    elements=st.sampled_from([1 << 13, 1 << 24]),
    fade=st.sampled_from([0, 7]),
    seed=st.integers(0, 9),
)
def test_any_image_and_any_tiles(
    mode: Mode,
    size: tuple[int, int],
    groups: list[int],
    temperature: float,
    least: float,
    elements: int,
    fade: int,
    seed: int,
) -> None:
    table = table_of(groups, least)
    cosines, plan = drawn(size, sum(groups), mode, seed, 0.1)
    plan = replace(plan, fade=fade)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_scores, "_ELEMENTS", elements)
        got = on_device(cosines, plan, size, table, temperature)
    wanted = exact(cosines, plan, size, groups, temperature)
    check(got, wanted, table, temperature)


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("size", [(90, 130), (300, 200), (9, 20)])
def test_no_tile_is_larger_than_it_may(mode: Mode, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1 << 12
    sizes: list[int] = []
    plain = device_scores._resize

    def spy(values: torch.Tensor, *axes: device_scores._Axis) -> torch.Tensor:
        made = plain(values, *axes)
        sizes.extend((values.numel(), made.numel()))
        return made

    cosines, plan = drawn(size, 20, mode, 1, 0.1)
    everything = on_device(cosines, plan, size, table_of([1] * 20), 0.05)
    monkeypatch.setattr(device_scores, "_ELEMENTS", most)
    monkeypatch.setattr(device_scores, "_resize", spy)
    tiled = on_device(cosines, plan, size, table_of([1] * 20), 0.05)
    # A single pixel may come from more: two rows and columns of the grid of a reduced image.
    assert max(sizes) <= max(most, 20 * plan.size[0] * plan.size[1] // 30)
    # Sums over phrases may go in another order in a tile of another shape.
    assert (tiled.labels == everything.labels).mean() > 0.9999
    np.testing.assert_allclose(tiled.confidence, everything.confidence, rtol=2 * _STEP)


def test_ties_go_to_the_first_phrase() -> None:
    cosines, plan = drawn((90, 130), 4, "slide", 2, 0.1)
    got = on_device(cosines.tile(5), plan, (90, 130), table_of([1] * 20), 0.05)
    assert set(np.unique(got.labels)) == {1, 2, 3, 4}
    assert got.confidence.max() <= 0.2


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("groups", [SYNONYMS, [1] * 300], ids=["synonyms", "16 bits"])
def test_the_best_classes_of_patches(mode: Mode, groups: list[int]) -> None:
    cosines, plan = drawn((90, 130), sum(groups), mode, 4, 0.1)
    table = table_of(groups)
    done = DeviceScorer(table, 0.05, CPU).send([cosines], [plan], (90, 130), UNIT, (6, 9), 5).wait()
    assert done is not None
    top = done[1]
    assert top is not None
    values = cosines.numpy()
    made = WholeScores(values[0], plan.size, 0.05) if plan.whole else WindowScores(values, plan, 0.05)
    index, shares = best_groups(made, (6, 9), groups, 5)
    assert top.ids.dtype == table.label_ids.dtype
    assert top.scores.dtype == np.float16
    np.testing.assert_allclose(top.scores.astype(float), shares.astype(float), rtol=2e-3)
    # Where two shares are the same in 16 bits, either may come first.
    tied = np.diff(shares.astype(float), axis=0) == 0
    apart = ~np.concatenate([np.zeros((1, 6, 9), bool), tied]) & ~np.concatenate([tied, np.zeros((1, 6, 9), bool)])
    apart[-1] = False
    assert apart.mean() > 0.5
    assert (top.ids == table.label_ids[index])[apart].all()


@pytest.mark.parametrize("size", [(90, 130), (70, 60)])
def test_large_images_are_fetched_tile_by_tile(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_scores, "_ELEMENTS", 1 << 12)
    cosines, plan = drawn(size, 20, "slide", 1, 0.1)
    table = table_of([1] * 20, 0.3)
    sent = on_device(cosines, plan, size, table, 0.05)
    fetched = DeviceScorer(table, 0.05, CPU).fetch([cosines], [plan], size, nullcontext)
    assert (fetched.labels == sent.labels).all()
    assert (fetched.confidence == sent.confidence).all()
    assert fetched.confidence.dtype == sent.confidence.dtype


class Launches(TorchDispatchMode):
    """Counts operations that a GPU computes: views and empty tensors cost nothing there."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        views = all(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        self.number += not views and "empty" not in func.name()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("phrases", "most"), [(30, 30), (80, 57), (171, 113)])
def test_an_image_takes_few_launches(phrases: int, most: int) -> None:
    """An image of 640 x 480 in two windows. Another image of this size brings nothing to the device again."""
    plan = make_plan((480, 640), 448, 448, 14)
    cosines = torch.from_numpy(np.random.default_rng(0).random((2, 32, 32, phrases), np.float32))
    scorer = DeviceScorer(table_of([1] * phrases), 0.07, CPU)
    scorer.send([cosines], [plan], (480, 640), UNIT)
    with Launches() as launches:
        scorer.send([cosines], [plan], (480, 640), UNIT)
    assert launches.number <= most


# ---- in the labeller ----


@pytest.fixture(scope="module")
def model(mlp_checkpoint: Path) -> Model:
    return tipsseg.load(str(mlp_checkpoint), device="cpu")


def as_on_a_gpu(made: Labeller) -> Labeller:
    """Scores where the features are, as if the CPU were a GPU."""
    backbone = made.model.backbone

    def scorer(level: ReadyContest, *, raw: bool) -> DeviceScorer:
        table = labeller._table_of(level, raw)
        return DeviceScorer(table, backbone.temperature, backbone.device, level.phrases, level.biases)

    made._scorer = scorer  # type: ignore[method-assign]
    return made


NAMES: list[str | ClassSpec] = [ClassSpec("panda leg", ("leg",)), "tree", ClassSpec("sky", min_confidence=0.2), "road"]


@pytest.mark.parametrize("most", [1 << 22, 100], ids=["sent", "fetched"])
def test_values_that_are_no_numbers_are_an_error(model: Model, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labeller, "_MAX_ASYNC_PIXELS", most)
    device = as_on_a_gpu(Labeller(model, make_vocabulary(NAMES)))
    features = model.encode(draw_picture(60, 80))
    patches = features.patches.clone()
    patches[0, 1, 2] = torch.nan
    broken = Features(features.size, features.plan, patches, features.class_tokens)
    scored = device.score(broken.scales)  # nothing waits for the device here
    with pytest.raises(DeviceError, match="infinity, NaN or zeros in float32 on cpu"):
        device.assign(scored)
