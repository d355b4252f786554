"""A vocabulary -> class vectors: what patches are compared with, and what each of the vectors stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import UsageError
from tipsseg.labelling.scoring.assign import LabelTable
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.text_cache import remembered
from tipsseg.types import BACKGROUND, LabelArray, ignore_id, label_dtype
from tipsseg.vocabulary.background import GENERAL_BACKGROUND, match_synonyms, synonym_threshold
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Phrase, Vocabulary


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """The phrases of a vocabulary as vectors.

    Attributes:
        vocabulary: Without the phrases of an automatic background that mean the same as a class.
        dropped: The phrases that were left out, each with the phrase of the class that it means the same as.
        vectors: [P, D] float32, in the order of the vocabulary's phrases; of unit length unless they were fitted.
        biases: [P] float32, added to the cosines; None for phrases as the text tower gives them.
    """

    vocabulary: Vocabulary
    dropped: Mapping[str, str]
    vectors: Values
    biases: Values | None = None

    def label_table(self, min_confidence: float) -> LabelTable:
        """Return what the vectors stand for; `min_confidence` is that of classes which have none of their own."""
        classes = self.vocabulary.classes
        groups = [
            (label_id, len(list(group))) for label_id, group in groupby(p.label_id for p in self.vocabulary.phrases)
        ]
        own = [min_confidence if each.min_confidence is None else each.min_confidence for each in classes]
        return LabelTable(
            groups=[count for _, count in groups],
            label_ids=cast(LabelArray, np.array([label_id for label_id, _ in groups], label_dtype(len(classes)))),
            min_confidence=np.array([min_confidence, *own], np.float32),
            ignore=ignore_id(len(classes)),
        )


def make_classifier(backbone: Backbone, vocabulary: Vocabulary, cache: Path | None = None) -> Classifier:
    """Encode the phrases of a vocabulary, and drop the automatic background phrases that mean the same as a class.

    Args:
        backbone: Encodes the phrases.
        vocabulary: The classes and the background.
        cache: The folder that keeps vectors for the next time; None: they are kept nowhere.

    Returns:
        The class vectors.
    """
    vectors = _phrase_vectors(backbone, vocabulary, cache)
    dropped = _same_meaning(vocabulary, vectors)
    vocabulary = vocabulary.drop_background(dropped)
    chosen = np.stack([vectors[phrase] for phrase in vocabulary.phrases])
    return Classifier(vocabulary, dropped, chosen)


def fitted_classifier(backbone: Backbone, fitted: FittedVocabulary) -> Classifier:
    """Return the class vectors of a fit. Raises UsageError if the model has another width."""
    width = fitted.vectors.shape[1]
    if width != backbone.embed_dim:
        raise UsageError(
            f"the vectors of the fitted vocabulary have {width} numbers, and the features of the model {backbone.embed_dim}",
            "Fit again with this model.",
        )
    return Classifier(fitted.vocabulary, {}, fitted.vectors, fitted.biases)


def _phrase_vectors(backbone: Backbone, vocabulary: Vocabulary, cache: Path | None) -> Mapping[Phrase, Values]:
    """The unit vectors, [D] each, of all phrases and of all that an automatic background is measured by."""
    # Each goes through the text tower once, whatever becomes of it.
    phrases = list(dict.fromkeys([*vocabulary.phrases, *(_general(vocabulary) if vocabulary.auto else ())]))

    def compute() -> Values:
        parts = [
            backbone.encode_text([phrase.text for phrase in group], templates)
            for templates, group in groupby(phrases, lambda phrase: phrase.templates)
        ]
        return np.concatenate([each.cpu().numpy() for each in parts])

    vectors = compute() if cache is None else remembered(cache, backbone, phrases, compute)
    return dict(zip(phrases, vectors, strict=True))


def _general(vocabulary: Vocabulary) -> list[Phrase]:
    return [Phrase(text, BACKGROUND, vocabulary.templates) for text in GENERAL_BACKGROUND]


def _same_meaning(vocabulary: Vocabulary, vectors: Mapping[Phrase, Values]) -> Mapping[str, str]:
    """The phrases of an automatic background that mean the same as a class, each with that class's phrase."""
    if not vocabulary.auto:
        return {}
    general = np.stack([vectors[phrase] for phrase in _general(vocabulary)])
    named = [phrase for phrase in vocabulary.phrases if phrase.label_id != BACKGROUND]
    classes = np.stack([vectors[phrase] for phrase in named])
    closest = match_synonyms(classes, general, synonym_threshold(general))
    pairs = zip(GENERAL_BACKGROUND, closest.tolist(), strict=True)
    return {text: named[index].text for text, index in pairs if index >= 0 and text in vocabulary.background}
