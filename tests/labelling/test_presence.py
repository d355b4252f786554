"""The term of presence: its numbers, what it does to labels, and that strength 0 is no term."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.concepts import ABSENT_WORDS, CLOSED_LIST
from tinytips.world.scenes import draw_scene
from tipsseg import ClassSpec, Features, Labeller, LabelMap, LabelOptions, Model, make_vocabulary
from tipsseg.errors import UsageError
from tipsseg.labelling.labeller import Cosines
from tipsseg.labelling.scoring.presence import presence_terms

TEMPERATURE = 0.04
LIST = [*CLOSED_LIST, *ABSENT_WORDS[:60]]


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return draw_scene(FIRST_SEED + 5100, 150, 220).image


def plainly(cosines: list[NDArray[np.float64]], groups: list[int], strength: float) -> NDArray[np.float64]:
    """The definition, patch by patch, in float64."""
    owners = np.repeat(np.arange(len(groups)), groups)
    most = np.zeros(len(groups))
    for row in np.concatenate([each.reshape(-1, len(owners)) for each in cosines]):
        weights = np.array([np.exp(row[owners == group].max() / TEMPERATURE) for group in range(len(groups))])
        most = np.maximum(most, weights / weights.sum())
    return (strength * TEMPERATURE * np.log(np.maximum(most, 1e-4)))[owners]


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    windows=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    strength=st.floats(0, 8),
    spread=st.floats(0.001, 0.5),
    seed=st.integers(0, 99),
)
def test_the_term_is_the_largest_share_of_a_patch(
    groups: list[int], windows: list[int], strength: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cosines = [rng.normal(0.1, spread, (count, 3, 4, sum(groups))).astype(np.float32) for count in windows]
    made = presence_terms([torch.from_numpy(each) for each in cosines], groups, TEMPERATURE, strength).numpy()
    expected = plainly([each.astype(np.float64) for each in cosines], groups, strength)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    assert (made <= 0).all()


def test_a_thing_on_one_patch_has_all_of_its_presence() -> None:
    cosines = torch.full((1, 8, 8, 3), 0.1)
    cosines[..., 0] = 0.5
    cosines[0, 2, 5, 1] = 0.9
    terms = presence_terms([cosines], [1, 1, 1], TEMPERATURE, 1.0)
    assert terms[0] > -1e-3
    assert terms[1] > -1e-3
    assert terms[2] < -0.3


def areas_of_absent(model: Model, options: LabelOptions) -> float:
    """The mean share of an image that goes to classes of the list that it does not have."""
    found = []
    labeller = Labeller(model, make_vocabulary(LIST, "none"), options)
    for seed in range(FIRST_SEED + 5101, FIRST_SEED + 5105):
        scene = draw_scene(seed, 224, 300)
        labels = labeller.label(scene.image).labels
        found.append(np.isin(labels, np.unique(to_list(scene.truth, LIST)), invert=True).mean())
    return float(np.mean(found))


def test_classes_that_are_not_there_lose_area(tiny: Model) -> None:
    assert areas_of_absent(tiny, LabelOptions(presence=2)) < 0.8 * areas_of_absent(tiny, LabelOptions())


def same(one: LabelMap, other: LabelMap) -> bool:
    return np.array_equal(one.labels, other.labels) and np.array_equal(one.confidence, other.confidence)


#: Options beside the strength.
OPTIONS: dict[str, LabelOptions] = {
    "plain": LabelOptions(),
    "in one piece": LabelOptions(mode="whole"),
    "refined": LabelOptions(refine="pamr"),
    "a threshold": LabelOptions(min_confidence=0.4),
    "a short side": LabelOptions(short_side=120),
}
ENTRIES: list[str | ClassSpec] = [
    "panda leg",
    ClassSpec("tree", ("bush", "wood")),
    "sky",
    ClassSpec("wall", negative=True),
    "a big stone",
]


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("background", ["auto", "none"])
def test_the_term_is_added_to_the_cosines_and_nothing_else_changes(
    random: Model, image: NDArray[np.uint8], case: str, background: str
) -> None:
    """Whatever is made of the scores: the labels are those of a labeller without presence whose cosines have the term."""
    options = OPTIONS[case]
    vocabulary = make_vocabulary(ENTRIES, background)
    plain = Labeller(random, vocabulary, options)
    with_presence = Labeller(
        random,
        vocabulary,
        LabelOptions(options.mode, options.short_side, options.min_confidence, options.refine, presence=3),
    )
    prepared = plain.prepare(Image.fromarray(image))
    features = random.encode_prepared(prepared)
    scored = plain.score(features)
    assert isinstance(scored, Cosines)
    ids = [phrase.label_id for phrase in plain.vocabulary.phrases]
    terms = presence_terms(
        [scored.values], [ids.count(each) for each in dict.fromkeys(ids)], random.backbone.temperature, 3
    )
    assert terms.min() < -1e-4
    expected = plain.assign(prepared, Cosines(scored.values + terms, 0))
    assert same(with_presence.label(image), expected)
    assert not same(with_presence.label(image), plain.label(image))
    guide = image if options.refine == "pamr" else None
    assert same(with_presence.label(features, guide=guide), expected)


@pytest.mark.parametrize("presence", [0, 0.0, -0.0])
def test_strength_0_is_no_term(
    random: Model, image: NDArray[np.uint8], presence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tipsseg.labelling.labeller.presence_terms", unwanted)
    vocabulary = make_vocabulary(ENTRIES)
    one, other = (Labeller(random, vocabulary, each) for each in (LabelOptions(), LabelOptions(presence=presence)))
    assert same(one.label(image), other.label(image))
    assert LabelOptions(presence=presence).record() == LabelOptions().record()
    assert "presence" not in LabelOptions().record()


def test_features_in_a_file_are_enough(tiny: Model, tmp_path: Path, image: NDArray[np.uint8]) -> None:
    labeller = Labeller(tiny, ["tree", "sky", "fish"], LabelOptions(presence=2))
    tiny.encode(image).save(tmp_path / "a.safetensors", "float32")
    assert same(labeller.label(Features.load(tmp_path / "a.safetensors")), labeller.label(image))


@pytest.mark.parametrize(
    ("presence", "message"),
    [
        (-1, "argument `presence`=-1 is not between 0 and 100"),
        (100.5, "argument `presence`=100.5 is not between 0 and 100"),
        (float("nan"), "argument `presence`=nan is not between 0 and 100"),
        ("2", "argument `presence` must be a number, not '2'"),
        (True, "argument `presence` must be a number, not True"),
        (None, "argument `presence` must be a number, not None"),
    ],
)
def test_what_is_no_strength(presence: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelOptions(presence=presence)  # type: ignore[arg-type]
    assert caught.value.message == message
