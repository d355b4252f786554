"""The general background of `--background auto`: which phrases compete with the user's, and which mean the same.

A background phrase that means the same as a class would take the class's pixels away. The same words are told by the text alone
(`without_words_of`); other words for the same thing, "ocean" for "sea", by the text tower (`same_meaning`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: General stuff that competes for pixels under `--background auto`, and is written as 0.
GENERAL_BACKGROUND: tuple[str, ...] = (
    "sky",
    "wall",
    "tree",
    "wood",
    "grass",
    "road",
    "sea",
    "river",
    "mountain",
    "sand",
    "desk",
    "bed",
    "building",
    "cloud",
    "lamp",
    "door",
    "window",
    "ceiling",
    "shelf",
    "curtain",
    "stair",
    "floor",
    "hill",
    "rail",
    "fence",
)

#: Pairs of the list that people use for one thing. All other pairs of the list are different things.
_KIN = (("tree", "wood"), ("sea", "river"), ("mountain", "hill"))

#: So many of the pairs of different things are closer than the threshold, at most.
_MISTAKEN = 0.05

_ARTICLE = re.compile(r"^(a|an|the|some) ")


def without_words_of(phrases: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The phrases without those that are the same words as a name: all but case, a leading article and the plural's "s" or "es"."""
    bare = {_bare(name) for name in names}
    return tuple(phrase for phrase in phrases if bare.isdisjoint(_forms(_bare(phrase))))


def _forms(text: str) -> set[str]:
    """A text, and what differs from it in a plural's ending alone."""
    shorter = {text.removesuffix(ending) for ending in ("s", "es")}
    return {text, f"{text}s", f"{text}es", *shorter}


def meaning_threshold(vectors: NDArray[np.float32]) -> float:
    """The cosine from which on a text is taken to mean the same as a phrase of GENERAL_BACKGROUND.

    vectors  [25, D], the unit text vectors of GENERAL_BACKGROUND in that order

    How close texts lie differs from model to model, so the measure is taken from the model's own text tower. The list has
    pairs that people use for one thing (tree and wood, sea and river, mountain and hill), and some 300 pairs of different
    things. What is as close as the loosest of the first means the same, unless more than 5 % of the second are as close too:
    then the threshold is their 95th percentile. The errors weigh unequally, which is why it may be that low. A phrase that is
    left out for nothing leaves two dozen others to stand for what is not asked for; one that is kept by mistake halves its class.
    """
    cosines = vectors @ vectors.T  # [25, 25]
    number = {phrase: index for index, phrase in enumerate(GENERAL_BACKGROUND)}
    kin = [(number[one], number[other]) for one, other in _KIN]
    different = np.triu(np.ones(cosines.shape, bool), k=1)
    for pair in kin:
        different[pair] = False
    loosest = min(float(cosines[pair]) for pair in kin)
    return max(loosest, float(np.quantile(cosines[different], 1 - _MISTAKEN)))


def same_meaning(classes: NDArray[np.float32], background: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """The class phrase that each background phrase means the same as, -1 for none.

    classes     [P, D] unit text vectors of the class phrases
    background  [B, D] unit text vectors of the background phrases
    threshold   cosine, as `meaning_threshold` gives it

    Returns [B] indices of the closest class phrase.
    """
    cosines = background @ classes.T  # [B, P]
    closest = cosines.argmax(1)
    return np.where(cosines.max(1) >= threshold, closest, -1)


def _bare(phrase: str) -> str:
    text = " ".join(phrase.lower().split())
    return _ARTICLE.sub("", text, count=1)
