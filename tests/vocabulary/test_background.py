"""Which phrases of the general background mean the same as a class: by their words, and by vectors made by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, drop_equal_words, match_synonyms

SYNONYMS = (("tree", "wood"), ("sea", "river"), ("mountain", "hill"))

SAME = [
    ("tree", "tree"),
    ("Tree", "tree"),
    ("TREES", "tree"),
    ("tree", "trees"),
    ("the sky", "sky"),
    ("The Sky", "sky"),
    ("a tree", "the trees"),
    ("an apple", "apples"),
    ("some grass", "grass"),
    ("box", "boxes"),
    ("panda", "pandas"),
    ("  stone   wall ", "stone wall"),
    ("the  stone walls", "stone wall"),
    ("grass", "gras"),  # taken for a plural: nothing in the list of phrases suffers
    ("the", "the"),
]
DIFFERENT = [
    ("tree trunk", "tree"),
    ("tree", "tree trunks"),
    ("shelves", "shelf"),
    ("wood", "woody"),
    ("sky", "skyline"),
    ("sea", "season"),
    ("rail", "railing"),
    ("sand", "sandes s"),
    ("wall", "the"),
    ("an", "the"),
    ("anthill", "hill"),
    ("stone wall", "stonewall"),
    ("their sky", "sky"),
    ("sky the", "sky"),
    ("the the sky", "sky"),
    ("glasses", "glas"),
    ("treess", "tree"),
    ("panda leg", "pandleg"),
]


@pytest.mark.parametrize(
    ("one", "other", "same"), [(*pair, True) for pair in SAME] + [(*pair, False) for pair in DIFFERENT]
)
def test_phrases_of_the_same_words(one: str, other: str, same: bool) -> None:
    assert drop_equal_words(["zz", one], ["yy", other]) == (("zz",) if same else ("zz", one))
    assert drop_equal_words([other, "zz"], [one]) == (("zz",) if same else (other, "zz"))


def test_no_two_phrases_of_the_general_background_are_the_same() -> None:
    assert [pair for pair in combinations(GENERAL_BACKGROUND, 2) if not drop_equal_words(pair[:1], pair[1:])] == []
    assert len(GENERAL_BACKGROUND) == 25
    assert {phrase for pair in SYNONYMS for phrase in pair} < set(GENERAL_BACKGROUND)


# Of 297 values in order the 95th percentile lies at 0.95 * 296 = 281.2: with 15 pairs of 0.8 at indices 282..296 it is a fifth of
# the way to them, with 21 it is among them.
E0, E1, E2 = np.eye(3, dtype=np.float32)
HALF = np.array([0.5, np.sqrt(0.75), 0.0], np.float32)  # cosine 0.5 with E0, 0.87 with E1


@pytest.mark.parametrize(
    ("classes", "background", "threshold", "expected"),
    [
        pytest.param([E0, E1], [E1, E0, E2], 0.5, [1, 0, -1], id="index of the class, -1 for none"),
        pytest.param([E0], [HALF], 0.5, [0], id="at the threshold"),
        pytest.param([E0], [HALF], 0.51, [-1], id="below the threshold"),
        pytest.param([E0, E1], [HALF], 0.4, [1], id="the closest of two above the threshold"),
        pytest.param([E1, E0], [HALF], 0.4, [0], id="the closest of two, in the other order"),
        pytest.param([E0], [-E0], 0.5, [-1], id="opposite"),
        pytest.param([E0, E1, E2], [], 0.5, [], id="no background"),
    ],
)
def test_same_meaning(
    classes: list[NDArray[np.float32]], background: list[NDArray[np.float32]], threshold: float, expected: list[int]
) -> None:
    vectors = np.array(background, np.float32).reshape(-1, 3)
    found = match_synonyms(np.array(classes, np.float32), vectors, threshold)
    assert found.shape == (len(background),)
    assert found.tolist() == expected
