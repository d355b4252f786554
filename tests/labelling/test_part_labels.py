"""Labels of parts inside wholes, against each contest labelled on its own; and labels among the names of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tipsseg
from tipsseg import ClassSpec, Labeller, LabelMap, LabelOptions, Model, make_vocabulary
from tipsseg.errors import UsageError, VocabularyError
from tipsseg.labelling import labeller as module
from tipsseg.labelling.assign import ReadyContest, match
from tipsseg.labelling.device_scores import DeviceScorer
from tipsseg.labelling.labeller import Cosines

NAMES = ["panda/head", "panda/leg/hind", "panda/leg", "tree", "tree/crown"]
SIZE = (240, 320)
_SCENE = Path(__file__).parents[2] / "examples/scenes/meadow/panda-and-tree.jpg"
PICTURE = np.asarray(Image.open(_SCENE).resize(SIZE[::-1]))


@pytest.fixture(scope="module")
def model() -> Model:
    return tipsseg.load("tiny", device="cpu")


def label(model: Model, names: Sequence[str | ClassSpec] = NAMES, background: str = "auto", **options: Any) -> LabelMap:
    made = Labeller(model, make_vocabulary(names, background), LabelOptions(short_side=112, **options))
    return made.label(PICTURE)


def expected(model: Model, background: str, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The labels and confidences of `label`, contest by contest over the whole image."""
    made = Labeller(model, make_vocabulary(NAMES, background), LabelOptions(short_side=112, **options))
    scored = made.score(model.encode(PICTURE, short_side=112, **options).scales)
    assert isinstance(scored, Cosines)
    labels: NDArray[Any] = np.zeros(SIZE)
    confidence: NDArray[Any] = np.zeros(SIZE)
    for level in made._levels:
        scores = level.scores(scored.values, scored.plans, model.backbone.temperature)
        found = match(scores, SIZE, level.table)
        if not level.whole:
            labels, confidence = found.labels.copy(), found.confidence.copy()
            continue
        inside = (labels == level.whole) & (found.labels != level.whole)
        labels[inside] = found.labels[inside]
        share = found.confidence[inside].astype(np.float64)
        confidence[inside] *= share**2 / (share**2 + (1 - share) ** 2)
    return labels, confidence


@pytest.mark.parametrize("background", ["auto", "none"])
@pytest.mark.parametrize("options", [{}, {"mode": "whole"}, {"scales": (1, 1.5)}], ids=["slide", "whole", "scales"])
def test_labels_are_those_of_each_contest(model: Model, background: str, options: dict[str, Any]) -> None:
    labels, confidence = expected(model, background, **options)
    made = label(model, background=background, **options)
    assert np.array_equal(made.labels, labels)
    assert np.abs(made.confidence - confidence).max() < 1e-6
    assert len(np.unique(labels)) >= 3


def test_parts_claim_their_wholes_without_a_background(model: Model) -> None:
    made = label(model, background="none")
    assert made.mask("panda").any()
    assert not np.isin(made.labels, [4, 6]).any()


def test_a_gpu_gives_the_same_labels(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    host = label(model)

    class Scorer(DeviceScorer):
        def _own(self, cosines: Sequence[Any]) -> Sequence[torch.Tensor]:
            return super()._own([torch.from_numpy(np.asarray(scale)) for scale in cosines])

    def scorer(self: Labeller, level: ReadyContest, *, raw: bool) -> DeviceScorer:
        table, backbone = module._table_of(level, raw), model.backbone
        return Scorer(table, backbone.temperature, backbone.device, level.phrases, level.biases)

    monkeypatch.setattr(Labeller, "_scorer", scorer)
    device = label(model)
    assert (device.labels != host.labels).mean() < 1e-3
    assert np.abs(device.confidence.astype(float) - host.confidence).max() < 5e-3


def test_low_confidences_fall_back_to_the_whole_then_to_ignored(model: Model) -> None:
    every = label(model)
    assert every.whole_confidences
    least = float(np.median(every.confidence[np.isin(every.labels, [1, 2, 3, 5])]))
    strict = label(model, min_confidence=least)
    sure = strict.labels == every.labels
    assert (every.confidence[sure & (every.labels > 0)] >= np.float32(least)).all()
    ignored = strict.labels == strict.ignore
    assert np.array_equal(ignored, every.whole_confidences[0] < np.float32(least))
    fell = ~sure & ~ignored
    assert fell.any()
    assert set(strict.labels[fell].tolist()) <= {6, 4, 3}


def test_wholes_have_the_pixels_of_their_parts(model: Model) -> None:
    made = label(model)
    assert np.array_equal(made.mask("panda"), np.isin(made.labels, [1, 2, 3, 6]))
    assert np.array_equal(made.mask("panda/leg"), np.isin(made.labels, [2, 3]))
    objects = made.find_objects()
    areas = {each.name: 0 for each in objects}
    for each in objects:
        areas[each.name] += each.area
    assert areas["panda"] == made.mask("panda").sum()
    assert areas["panda/head"] == made.mask("panda/head").sum()
    whole = next(each for each in objects if each.name == "panda")
    assert made.whole_confidences
    assert whole.score == pytest.approx(made.whole_confidences[0][whole.mask].mean(), abs=1e-4)


def test_a_region_has_one_whole_and_parts_inside(model: Model) -> None:
    regions = np.zeros(SIZE, np.int32)
    regions[40:200, 10:150] = 1
    made = Labeller(model, make_vocabulary(NAMES), LabelOptions(short_side=112)).label(PICTURE, regions=regions)
    assert made.instances is not None
    wholes = {1: 6, 2: 6, 3: 6, 5: 4}
    for number in np.unique(made.instances[made.instances > 0]):
        inside = made.labels[made.instances == number].tolist()
        assert len({wholes.get(each, each) for each in inside}) == 1


# ---- among the names of an image ----

BACKGROUND = ["sky", "grass"]


@pytest.mark.parametrize("background", [BACKGROUND, "none"], ids=["background", "none"])
def test_names_that_are_surely_not_in_an_image_compete_as_background(model: Model, background: Any) -> None:
    every = Labeller(model, make_vocabulary(["panda", "tree", "house"], background), short_side=112)
    others = "none" if background == "none" else [*background, "tree"]
    some = Labeller(model, make_vocabulary(["panda", "house"], others), short_side=112).label(PICTURE)
    made = every.label(PICTURE, names=every.vocabulary.present(["house", "panda"], surely=True))
    assert made.present is not None
    assert made.present.ids == frozenset({1, 3})
    assert np.array_equal(made.labels, np.array([0, 1, 3], np.uint8)[some.labels])
    assert np.abs(made.confidence - some.confidence).max() < 1e-5
    assert np.array_equal(
        every.label(PICTURE).labels,
        every.label(PICTURE, names=every.vocabulary.present(["panda", "tree", "house"], surely=True)).labels,
    )


def test_names_that_are_not_told_win_fewer_pixels(model: Model) -> None:
    """They have a handicap: what is said of an image may lack a thing that is there."""
    made = Labeller(model, ["panda", "tree", "sky"], short_side=112)
    every, some = made.label(PICTURE), made.label(PICTURE, names=["panda", "sky"])
    assert 0 < some.mask("tree").sum() < every.mask("tree").sum()
    assert not (some.mask("tree") & ~every.mask("tree")).any()
    assert np.array_equal(made.label(PICTURE, names=["panda", "tree", "sky"]).labels, every.labels)


def test_names_stand_for_the_background_phrases_that_they_replace(model: Model) -> None:
    """With an automatic background, the phrase "tree" is a class, so the name competes where no tree is."""
    made = Labeller(model, ["panda", "tree", "sky"], short_side=112)
    assert {"tree", "sky"}.isdisjoint(made.vocabulary.background)
    every, some = made.label(PICTURE), made.label(PICTURE, names=made.vocabulary.present(["panda"], surely=True))
    assert np.array_equal(some.mask("panda"), every.mask("panda"))
    assert set(np.unique(some.labels)) == {0, 1}


def test_a_whole_brings_its_parts_and_a_part_its_whole(model: Model) -> None:
    made = Labeller(model, make_vocabulary(NAMES, BACKGROUND), short_side=112)
    every, found = made.label(PICTURE), made.label(PICTURE, names=made.vocabulary.present(["panda"], surely=True))
    assert np.array_equal(found.labels, np.where(np.isin(every.labels, (1, 2, 3, 6)), every.labels, 0))
    assert made.vocabulary.present(["panda"]).ids == frozenset({1, 2, 3, 6})
    assert made.vocabulary.present(["panda/head"]).ids == frozenset({1, 6})


def test_a_part_that_is_not_there_counts_as_its_whole(model: Model) -> None:
    made = Labeller(model, make_vocabulary(NAMES, BACKGROUND), short_side=112)
    head, hind, leg, _, _, panda = range(1, 7)
    every, some = made.label(PICTURE), made.label(PICTURE, names=made.vocabulary.present(["panda/head"], surely=True))
    assert (every.labels == leg).any()
    expected = np.where(np.isin(every.labels, (hind, leg)), panda, every.labels)
    assert np.array_equal(some.labels, np.where(np.isin(expected, (head, panda)), expected, 0))


def test_without_names_all_is_background(model: Model) -> None:
    assert not Labeller(model, make_vocabulary(["panda"], BACKGROUND)).label(PICTURE, names=[]).labels.any()
    none = Labeller(model, make_vocabulary(["panda"], "none"))
    with pytest.raises(UsageError, match="the vocabulary has no background"):
        none.label(PICTURE, names=[])
    with pytest.raises(VocabularyError, match="'pand' is not a class"):
        none.label(PICTURE, names=["pand"])
    with pytest.raises(UsageError, match="names must be a list"):
        none.label(PICTURE, names="panda")


def test_fits_have_parts_and_names_too(model: Model) -> None:
    from tipsseg.learning.fit import fit

    features = model.encode(PICTURE, short_side=112)
    text = Labeller(model, make_vocabulary(NAMES), LabelOptions(short_side=112))
    labels = text.label(PICTURE).labels
    fitted = fit(model, [features] * 2, [labels] * 2, make_vocabulary(NAMES), LabelOptions(short_side=112))
    assert len(fitted.vectors) == sum(len(each.phrases) for each in fitted.vocabulary.contests)
    assert [each.name for each in fitted.scores] == ["", *NAMES, "panda"]
    made = Labeller(model, fitted, LabelOptions(short_side=112))
    found = made.label(PICTURE)
    assert (found.labels == labels).mean() > 0.95
    some = made.label(PICTURE, names=made.vocabulary.present(["tree"], surely=True))
    assert set(np.unique(some.labels)) <= {0, 4, 5}
    # A fit that keeps the text vectors labels as the text does.
    kept = replace(fitted, vectors=np.concatenate(_text_vectors(text)), biases=np.concatenate(_text_biases(text)))
    again = Labeller(model, kept, LabelOptions(short_side=112)).label(PICTURE)
    assert np.array_equal(again.labels, labels)


def _text_vectors(made: Labeller) -> list[NDArray[np.float32]]:
    return [made._classifier.vectors[level.phrases] for level in made._levels]


def _text_biases(made: Labeller) -> list[NDArray[np.float32]]:
    return [
        np.zeros(len(level.phrases), np.float32) if level.biases is None else level.biases
        for level in made._levels
        if level.phrases is not None
    ]
