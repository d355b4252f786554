"""The drawn world, and that training on it runs, goes on after a break, and gives a model that loads."""

from __future__ import annotations

import numpy as np
import pytest

from tinytips.data.scoring import grid_best, iou, to_list
from tinytips.recipe import dense
from tinytips.world import concepts
from tinytips.world.scenes import draw_scene
from tipsseg.vocabulary.vocabulary import make_vocabulary


@pytest.mark.parametrize(
    "classes", [concepts.CLOSED_LIST, concepts.WHOLE_LIST, concepts.LEAF_LIST], ids=["closed", "whole", "leaf"]
)
def test_the_lists_cover_every_leaf_once(classes: tuple[str, ...]) -> None:
    covered = [leaf for name in classes for leaf in concepts.leaf_ids(name)]
    assert sorted(covered) == list(range(1, len(concepts.LEAVES) + 1))
    make_vocabulary(classes, "none")


@pytest.mark.parametrize("size", [(120, 160), (200, 150), (90, 400)], ids=str)
def test_a_scene_is_repeatable_and_wholly_labelled(size: tuple[int, int]) -> None:
    one, two, other = draw_scene(5, *size), draw_scene(5, *size), draw_scene(6, *size)
    assert (one.image == two.image).all()
    assert (one.truth == two.truth).all()
    assert (one.image != other.image).any()
    assert one.image.shape == (*size, 3)
    assert one.truth.shape == size
    assert one.truth.min() >= 1
    assert one.truth.max() <= len(concepts.LEAVES)


def test_the_right_phrase_depends_on_the_asked_phrases() -> None:
    table = dense.PhraseTable(np.random.default_rng(1))
    names = [concept.name for concept in concepts.CONCEPTS]
    words = list(table.words)
    tree, trunk, panda = (names.index(name) for name in ("tree", "tree trunk", "panda"))
    background = np.array([i for i in table.background if words[i] in ("tree", "sky", "desk", "lamp")])
    bg_tree, bg_sky = (len(names) + list(words[len(names) :]).index(word) for word in ("tree", "sky"))
    neutral = sorted(set(background) - {bg_tree, bg_sky})
    leaf = concepts.LEAF_ID

    def right(name: str, *asked: int) -> list[int]:
        return np.flatnonzero(table.positives(np.array(asked), background)[leaf[name]]).tolist()

    assert right("tree trunk", tree, trunk) == [trunk]  # the more specific one
    assert right("tree crown", tree, trunk) == [tree]
    assert right("tree trunk", tree) == [tree]
    assert right("tree trunk", panda) == [bg_tree]  # not asked for, so the background's tree
    assert right("car body", panda) == neutral  # nothing here means a car
    assert right("panda hind leg", panda) == [panda]


def test_grid_best_and_iou_on_a_hand_made_mask() -> None:
    truth = np.ones((32, 32), np.uint8)
    truth[:3] = 2  # one and a half cells of two pixels
    best = grid_best(truth)
    assert (best[:2] == 2).all()
    assert best.shape == truth.shape
    assert set(np.unique(best[2:4])) <= {1, 2}
    assert iou([truth], [truth], 2)[1:].tolist() == [1, 1]
    shifted = np.roll(truth, 1, axis=0)
    assert iou([truth], [shifted], 2)[2] == pytest.approx(2 / 4)
    assert to_list(np.array([[concepts.LEAF_ID["tree trunk"], 1]], np.uint8), ["tree"]).tolist() == [[1, 0]]
