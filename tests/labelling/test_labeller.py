"""What a vocabulary does to the labels: synonyms, negatives, thresholds, background by meaning, templates, refinement."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.concepts import CLOSED_LIST, leaf_ids
from tinytips.world.scenes import draw_scene
from tipsseg import ClassSpec, Labeller, LabelMap, LabelOptions, Model, make_vocabulary
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, TEMPLATES

NAMES = ["panda leg", "tree", "sky", "a big stone", "road"]


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return draw_scene(FIRST_SEED + 5000, 150, 220).image


def label(model: Model, image: NDArray[np.uint8], *entries: str | ClassSpec, **options: object) -> LabelMap:
    vocabulary = make_vocabulary(list(entries), "none")
    return Labeller(model, vocabulary, LabelOptions(**options)).label(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_synonyms_and_negatives_are_the_plain_labels_renumbered(tiny: Model, mode: str) -> None:
    image = draw_scene(FIRST_SEED + 5001, 200, 300).image
    plain = label(tiny, image, *CLOSED_LIST, mode=mode)
    first, second, third, *_ = np.argsort(np.bincount(plain.labels.ravel()))[::-1]  # the three of the largest areas
    assert (plain.labels == third).mean() > 0.02
    rest = [name for number, name in enumerate(CLOSED_LIST, start=1) if number not in (first, second, third)]
    merged = label(
        tiny,
        image,
        ClassSpec(CLOSED_LIST[first - 1], (CLOSED_LIST[third - 1],)),
        ClassSpec(CLOSED_LIST[second - 1], negative=True),
        *rest,
        mode=mode,
    )
    names = ["", CLOSED_LIST[first - 1], *rest]  # by the new ids
    table = np.array([99, *(names.index(name) if name in names else 0 for name in CLOSED_LIST)], np.uint8)
    table[third] = 1
    # The phrases go in another order, and sums of another order may turn a tie.
    assert (merged.labels == table[plain.labels]).mean() > 0.9995
    assert {0, 1} <= set(np.unique(merged.labels))
    assert [entry.name for entry in merged.classes] == names[1:]
    assert (merged.confidence >= plain.confidence - 1e-5).all()


def test_the_least_confidence_of_a_class_replaces_that_of_the_run(random: Model, image: NDArray[np.uint8]) -> None:
    plain = label(random, image, *NAMES)
    middle = float(np.median(plain.confidence))
    first, second = np.argsort(np.bincount(plain.labels.ravel(), minlength=6))[-2:]  # the two of the largest areas
    own = {first: 0.0, second: 1.0}
    entries = [ClassSpec(name, min_confidence=own.get(number)) for number, name in enumerate(NAMES, start=1)]
    got = label(random, image, *entries, min_confidence=middle)
    least = np.array([np.nan, *(own.get(number, middle) for number in range(1, 6))], np.float32)[plain.labels]
    assert (got.labels == np.where(plain.confidence < least, 255, plain.labels)).all()
    assert {first, 255} <= set(np.unique(got.labels))
    assert second not in got.labels
    assert (got.confidence == plain.confidence).all()


# class: (what the text tower of the embedded model takes for the same)
SAME = {
    "tree": {},
    "ocean": {"sea": "ocean", "river": "ocean"},
    "car": {"bed": "car"},  # for nothing, as the threshold allows
}


@pytest.mark.parametrize("name", SAME)
def test_auto_background_leaves_out_what_means_the_same(tiny: Model, name: str) -> None:
    labeller = Labeller(tiny, make_vocabulary([name, "balloon"]))
    assert labeller.dropped == SAME[name]
    gone = {*SAME[name], *([name] if name in GENERAL_BACKGROUND else [])}
    assert labeller.vocabulary.background == tuple(text for text in GENERAL_BACKGROUND if text not in gone)
    assert not labeller.vocabulary.auto


def test_synonyms_count_and_negatives_and_lists_do_not(tiny: Model) -> None:
    by_synonym = Labeller(tiny, make_vocabulary([ClassSpec("wet stuff", ("ocean",))]))
    assert by_synonym.dropped == {"sea": "ocean", "river": "ocean"}
    assert Labeller(tiny, make_vocabulary(["umbrella", ClassSpec("ocean", negative=True)])).dropped == {}
    assert Labeller(tiny, make_vocabulary(["ocean"], ["sea", "wall"])).vocabulary.background == ("sea", "wall")


def test_background_phrases_that_mean_a_class_take_no_pixels_of_it(tiny: Model) -> None:
    """Without the check by meaning, "river" would take a part of the sea away."""
    scenes = [draw_scene(FIRST_SEED + 5100 + index, 150, 200) for index in range(30)]
    scenes = [scene for scene in scenes if np.isin(scene.truth, leaf_ids("water")).mean() > 0.1][:6]
    assert len(scenes) >= 4

    def recall(vocabulary: tipsseg.Vocabulary) -> float:
        labeller = Labeller(tiny, vocabulary)
        water = [np.isin(scene.truth, leaf_ids("water")) for scene in scenes]
        return float(
            np.mean([(labeller.label(s.image).labels[w] == 1).mean() for s, w in zip(scenes, water, strict=True)])
        )

    assert recall(make_vocabulary(["sea"])) > 0.85
    assert recall(make_vocabulary(["sea"], [text for text in GENERAL_BACKGROUND if text != "sea"])) < 0.8


def test_absent_classes_are_not_labelled(tiny: Model) -> None:
    labeller = Labeller(tiny, make_vocabulary(["panda", "house", "boat"]))
    areas: list[float] = []
    for index in range(12):
        scene = draw_scene(FIRST_SEED + 5200 + index, 150, 200)
        labels = labeller.label(scene.image).labels
        for number, name in enumerate(("panda", "house", "boat"), start=1):
            if not np.isin(scene.truth, leaf_ids(name)).any():
                areas.append(float((labels == number).mean()))
    assert len(areas) > 12
    assert np.mean(areas) < 0.02


def test_refinement_draws_edges_and_none_changes_nothing(tiny: Model) -> None:
    scenes = [draw_scene(FIRST_SEED + 5300 + index, 200, 260) for index in range(5)]
    right = {}
    for refine in ("none", "pamr"):
        labeller = Labeller(tiny, make_vocabulary(CLOSED_LIST, "none"), LabelOptions(refine=refine))
        maps = [labeller.label(scene.image) for scene in scenes]
        right[refine] = np.mean(
            [(m.labels == to_list(s.truth, CLOSED_LIST)).mean() for m, s in zip(maps, scenes, strict=True)]
        )
        assert all(m.confidence.min() >= 0 and m.confidence.max() <= 1 + 1e-6 for m in maps)
    assert right["pamr"] > right["none"] + 0.01


def test_a_confidence_of_just_the_least_is_enough(random: Model, image: NDArray[np.uint8]) -> None:
    """One class alone is certain of every pixel, so --min-confidence 1 leaves it as it is."""
    got = label(random, image, "tree", min_confidence=1.0)
    assert (got.confidence == 1).all()
    assert (got.labels == 1).all()
    got = label(random, image, ClassSpec("tree", min_confidence=1.0))
    assert (got.labels == 1).all()


@pytest.mark.parametrize(("classes", "ignore"), [(254, 255), (255, 65535)])
def test_low_confidence_has_an_id_that_no_class_has(
    random: Model, image: NDArray[np.uint8], classes: int, ignore: int
) -> None:
    got = label(random, image, *(f"thing {number}" for number in range(classes)), min_confidence=1.0)
    assert got.labels.dtype.itemsize == (1 if classes == 254 else 2)
    assert got.ignore == ignore
    assert (got.labels == ignore).all()


def test_one_list_may_have_phrases_of_several_templates(random: Model, image: NDArray[np.uint8]) -> None:
    """Each phrase uses its own templates, and other templates change the confidence."""
    plain, protocol = ("{}",), TEMPLATES["protocol"]
    by = {
        templates: label(
            random, image, ClassSpec("tree", templates=templates[0]), ClassSpec("sky", templates=templates[1])
        )
        for templates in ((plain, plain), (plain, protocol), (protocol, plain), (protocol, protocol))
    }
    confidences = [each.confidence for each in by.values()]
    for number, one in enumerate(confidences):
        assert all(not np.allclose(one, other) for other in confidences[:number])
    turned = label(random, image, ClassSpec("sky", templates=protocol), ClassSpec("tree", templates=plain))
    np.testing.assert_allclose(turned.confidence, by[plain, protocol].confidence, atol=1e-5)


def test_a_pillow_image_is_turned_upright(random: Model, image: NDArray[np.uint8]) -> None:
    upright = label(random, image, *NAMES)
    turned = Image.fromarray(image).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    got = Labeller(random, make_vocabulary(NAMES, "none")).label(turned)
    assert (got.labels == upright.labels).all()
