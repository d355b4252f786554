"""The background phrases of the background "auto", except those that are synonyms of a class.

A background phrase that is a synonym of a class would take pixels from that class. `drop_equal_words` compares the words;
`match_synonyms` compares text embeddings, which also finds that "ocean" and "sea" are synonyms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: The background phrases of "auto". They compete with the classes, and their pixels are written as 0.
GENERAL_BACKGROUND: tuple[str, ...] = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sand", "desk", "bed", "building",
    "cloud", "lamp", "door", "window", "ceiling", "shelf", "curtain", "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip

#: The synonyms in GENERAL_BACKGROUND. All other pairs have different meanings.
_SYNONYMS = (("tree", "wood"), ("sea", "river"), ("mountain", "hill"))

#: The maximum fraction of pairs with different meanings that may reach the threshold.
_FALSE_RATE = 0.05

_ARTICLE = re.compile(r"^(a|an|the|some) ")


def drop_equal_words(phrases: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Drop phrases that equal a name. Ignores case, a leading article, and a plural "s" or "es"."""
    normalized = {_normalize(name) for name in names}
    return tuple(phrase for phrase in phrases if normalized.isdisjoint(_forms(_normalize(phrase))))


def _forms(text: str) -> set[str]:
    """Return a text with its possible singular and plural forms."""
    shorter = {text.removesuffix(ending) for ending in ("s", "es")}
    return {text, f"{text}s", f"{text}es", *shorter}


def synonym_threshold(vectors: NDArray[np.float32]) -> float:
    """Return the lowest cosine at which two texts count as synonyms.

    Typical cosines differ between models, so the threshold is calibrated on the model's own text tower. GENERAL_BACKGROUND has 3
    pairs of synonyms (tree and wood, sea and river, mountain and hill) and about 300 pairs with different meanings. The threshold
    is the lowest cosine of a pair of synonyms, or the 95th percentile of the other pairs if that is higher. A low threshold is
    safe, because the two errors are not equally bad: dropping a phrase by mistake leaves two dozen other background phrases, but
    keeping a synonym loses half of its class.

    `vectors` are the unit text embeddings of GENERAL_BACKGROUND in order, [25, D] float32.
    """
    cosines = vectors @ vectors.T  # [25, 25]
    number = {phrase: index for index, phrase in enumerate(GENERAL_BACKGROUND)}
    synonyms = [(number[one], number[other]) for one, other in _SYNONYMS]
    different = np.triu(np.ones(cosines.shape, bool), k=1)
    for pair in synonyms:
        different[pair] = False
    loosest = min(float(cosines[pair]) for pair in synonyms)
    return max(loosest, float(np.quantile(cosines[different], 1 - _FALSE_RATE)))


def match_synonyms(classes: NDArray[np.float32], background: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Match background phrases with class phrases that are synonyms.

    Args:
        classes: [P, D] float32, unit text embeddings of the class phrases.
        background: [B, D] float32, unit text embeddings of the background phrases.
        threshold: The cosine from `synonym_threshold`.

    Returns:
        [B], the index of the closest class phrase for each background phrase; -1 if its cosine is below the threshold.
    """
    cosines = background @ classes.T  # [B, P]
    closest = cosines.argmax(1)
    return np.where(cosines.max(1) >= threshold, closest, -1)


def _normalize(phrase: str) -> str:
    text = " ".join(phrase.lower().split())
    return _ARTICLE.sub("", text, count=1)
