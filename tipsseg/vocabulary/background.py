"""The general background, which is meant by the background "auto": its phrases, and which of them mean the same as a class.

A background phrase that means the same as a class would take the class's pixels away. The text alone shows that two phrases have
the same words (`without_words_of`); the text tower shows that other words mean the same, "ocean" and "sea" (`same_meaning`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: Background phrases that compete for pixels under the background "auto", and are written as 0.
GENERAL_BACKGROUND: tuple[str, ...] = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sand", "desk", "bed", "building",
    "cloud", "lamp", "door", "window", "ceiling", "shelf", "curtain", "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip

#: Synonyms: pairs of the list that people use for one thing. All other pairs of the list are different things.
_SYNONYMS = (("tree", "wood"), ("sea", "river"), ("mountain", "hill"))

#: So many of the pairs of different things are closer than the threshold, at most.
_MISTAKEN = 0.05

_ARTICLE = re.compile(r"^(a|an|the|some) ")


def without_words_of(phrases: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Leave out each phrase that has the words of a name; case, a leading article and the plural's "s" or "es" do not count."""
    bare = {_bare(name) for name in names}
    return tuple(phrase for phrase in phrases if bare.isdisjoint(_forms(_bare(phrase))))


def _forms(text: str) -> set[str]:
    shorter = {text.removesuffix(ending) for ending in ("s", "es")}
    return {text, f"{text}s", f"{text}es", *shorter}


def meaning_threshold(vectors: NDArray[np.float32]) -> float:
    """Return the cosine at which a text is taken to mean the same as a phrase of GENERAL_BACKGROUND.

    How close texts lie differs from model to model. The model's own text tower gives the measure. The list has 3 pairs of synonyms
    (tree and wood, sea and river, mountain and hill) and some 300 pairs of different things. The threshold is the lowest cosine of
    a pair of synonyms, unless more than 5 % of the other pairs reach it: then it is the 95th percentile of the other pairs. It may
    be that low because the two errors weigh unequally. A phrase that is left out by mistake leaves two dozen others to stand for
    the background; a phrase that is kept by mistake halves its class.

    `vectors` are the unit text embeddings of GENERAL_BACKGROUND in its order, [25, D] float32.
    """
    cosines = vectors @ vectors.T  # [25, 25]
    number = {phrase: index for index, phrase in enumerate(GENERAL_BACKGROUND)}
    synonyms = [(number[one], number[other]) for one, other in _SYNONYMS]
    different = np.triu(np.ones(cosines.shape, bool), k=1)
    for pair in synonyms:
        different[pair] = False
    loosest = min(float(cosines[pair]) for pair in synonyms)
    return max(loosest, float(np.quantile(cosines[different], 1 - _MISTAKEN)))


def same_meaning(classes: NDArray[np.float32], background: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Find the class phrase that each background phrase means the same as.

    Args:
        classes: [P, D] float32, unit text embeddings of the class phrases.
        background: [B, D] float32, unit text embeddings of the background phrases.
        threshold: A cosine, as `meaning_threshold` gives it.

    Returns:
        [B] the index of the closest class phrase; -1 if no class phrase reaches the threshold.
    """
    cosines = background @ classes.T  # [B, P]
    closest = cosines.argmax(1)
    return np.where(cosines.max(1) >= threshold, closest, -1)


def _bare(phrase: str) -> str:
    text = " ".join(phrase.lower().split())
    return _ARTICLE.sub("", text, count=1)
