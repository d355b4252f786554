"""Which phrases of the general background mean the same as a class: by their words, and by vectors made by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tipsseg.vocabulary.background import GENERAL_BACKGROUND, drop_equal_words, match_synonyms, synonym_threshold

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
def test_the_same_words(one: str, other: str, same: bool) -> None:
    assert drop_equal_words(["zz", one], ["yy", other]) == (("zz",) if same else ("zz", one))
    assert drop_equal_words([other, "zz"], [one]) == (("zz",) if same else (other, "zz"))


def test_no_two_phrases_of_the_general_background_are_the_same() -> None:
    assert [pair for pair in combinations(GENERAL_BACKGROUND, 2) if not drop_equal_words(pair[:1], pair[1:])] == []
    assert len(GENERAL_BACKGROUND) == 25
    assert {phrase for pair in SYNONYMS for phrase in pair} < set(GENERAL_BACKGROUND)


def embeddings(synonyms: tuple[float, float, float], group: int) -> NDArray[np.float32]:
    """Unit vectors [25, 25] of GENERAL_BACKGROUND with known cosines.

    The pairs of SYNONYMS have the cosines `synonyms`; of the phrases that are in no pair, the first `group` have 0.8 with each
    other. All other pairs have 0. So of the 300 - 3 pairs of different things, group * (group - 1) / 2 have 0.8.
    """
    cosines = np.eye(len(GENERAL_BACKGROUND))
    alone = [phrase for phrase in GENERAL_BACKGROUND if not any(phrase in pair for pair in SYNONYMS)]
    close = dict.fromkeys(combinations(alone[:group], 2), 0.8) | dict(zip(SYNONYMS, synonyms, strict=True))
    for (one, other), cosine in close.items():
        index = GENERAL_BACKGROUND.index(one), GENERAL_BACKGROUND.index(other)
        cosines[index] = cosines[index[::-1]] = cosine
    return np.linalg.cholesky(cosines).astype(np.float32)  # rows whose dot products are the cosines


# Of 297 values in order the 95th percentile lies at 0.95 * 296 = 281.2: with 15 pairs of 0.8 at indices 282..296 it is a fifth of
# the way to them, with 21 it is among them.
@pytest.mark.parametrize(
    ("synonyms", "group", "threshold"),
    [
        pytest.param((0.7, 0.9, 0.95), 0, 0.7, id="loosest synonyms: tree and wood"),
        pytest.param((0.9, 0.7, 0.95), 0, 0.7, id="loosest synonyms: sea and river"),
        pytest.param((0.9, 0.95, 0.7), 0, 0.7, id="loosest synonyms: mountain and hill"),
        pytest.param((0.3, 0.9, 0.9), 6, 0.3, id="loosest synonyms above the percentile"),
        pytest.param((0.1, 0.1, 0.1), 6, 0.2 * 0.8, id="loosest synonyms just below the percentile"),
        pytest.param(
            (0.1, 0.9, 0.9), 7, 0.8, id="more than 5 % of different things are closer than the loosest synonyms"
        ),
        pytest.param((0.9, 0.85, 0.95), 7, 0.85, id="synonyms above everything"),
        pytest.param((-0.5, 0.9, 0.9), 0, 0.0, id="synonyms that are opposites"),
    ],
)
def test_meaning_threshold(synonyms: tuple[float, float, float], group: int, threshold: float) -> None:
    assert synonym_threshold(embeddings(synonyms, group)) == pytest.approx(threshold, abs=1e-6)


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
