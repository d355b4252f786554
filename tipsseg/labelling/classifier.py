"""Turn a vocabulary into class vectors, map each vector to its class, and cache the text vectors of a model on disk.

The cached files are in the cache's `text` folder. Their names are hashes of everything that determines the vectors: the phrases and
templates, the model's files, versions, device and dtype. On a CPU, nothing about the cache imports torch. If a file cannot be read
or written, the vectors are encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np

from tipsseg._version import __version__
from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import TipssegError, UsageError
from tipsseg.labelling.assign import LabelTable, ReadyContest
from tipsseg.labelling.sums import Values
from tipsseg.types import BACKGROUND, LabelArray, ignore_id, label_dtype
from tipsseg.util.files import atomic_path, processor_name
from tipsseg.util.json import json_bytes
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, match_synonyms, synonym_threshold
from tipsseg.vocabulary.vocabulary import Contest, Phrase, Present, Vocabulary
from tipsseg.weights.sources import file_hashes

#: The handicap of a phrase (see `vocabulary.Contest`), in temperatures. Chosen on synthetic scenes, see tests/benchmarks/README.md.
_HANDICAP = 1.5

#: The handicap of a class that is probably not in the image, in temperatures. Measured there too.
_UNLIKELY = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Phrase vectors of a vocabulary.

    Attributes:
        vocabulary: The vocabulary, without automatic background phrases that mean the same as a class.
        dropped: The removed background phrases, each mapped to the class phrase with the same meaning.
        vectors: [P, D] float32: unit vectors in the order of the vocabulary's phrases, or the vectors of a fit (see
            `FittedVocabulary`).
        biases: [P] float32, added to the cosines; None for text vectors.
    """

    vocabulary: Vocabulary
    dropped: Mapping[str, str]
    vectors: Values
    biases: Values | None = None

    def levels(
        self, min_confidence: float, temperature: float, present: Present | None = None
    ) -> tuple[ReadyContest, ...]:
        """Return the contests of the vocabulary: that for the image, then those inside wholes.

        Args:
            min_confidence: The minimum confidence of classes that do not set their own.
            temperature: The temperature of the softmax for confidences.
            present: The classes that are in the image; None if nothing is known.
        """
        contests = self.vocabulary.contests_of(present)
        if len(contests) == 1 and present is None:
            return (ReadyContest(whole=BACKGROUND, table=self._label_table(contests[0], min_confidence)),)
        # A phrase has one text vector, but a fitted vector in each contest.
        fitted = self.biases is not None
        known = [(contest.whole, phrase) for contest in self.vocabulary.contests for phrase in contest.phrases]
        if not fitted:
            known = [(BACKGROUND, phrase) for phrase in self.vocabulary.phrases]
        numbers = {(whole, *_text_of(phrase)): number for number, (whole, phrase) in enumerate(known)}
        levels = list[ReadyContest]()
        for contest in contests:
            whole = contest.whole if fitted else BACKGROUND
            phrases = np.array([numbers[whole, *_text_of(phrase)] for phrase in contest.phrases], np.intp)
            handicaps = np.array([0 if fitted else _HANDICAP * each.handicap for each in contest.phrases], np.float32)
            handicaps[[each.label_id in contest.unlikely for each in contest.phrases]] += _UNLIKELY
            biases = handicaps * np.float32(-temperature) if handicaps.any() else None
            table = self._label_table(contest, min_confidence)
            levels.append(ReadyContest(whole=contest.whole, phrases=phrases, biases=biases, table=table))
        return tuple(levels)

    def _label_table(self, contest: Contest, min_confidence: float) -> LabelTable:
        classes = self.vocabulary.classes
        groups = [(label_id, len(list(group))) for label_id, group in groupby(p.label_id for p in contest.phrases)]
        thresholds = [min_confidence if entry.min_confidence is None else entry.min_confidence for entry in classes]
        return LabelTable(
            groups=[count for _, count in groups],
            label_ids=cast(LabelArray, np.array([label_id for label_id, _ in groups], label_dtype(len(classes)))),
            min_confidence=np.array([min_confidence, *thresholds], np.float32),
            ignore=ignore_id(len(classes)),
        )


def make_classifier(backbone: Backbone, vocabulary: Vocabulary, cache: Path | None = None) -> Classifier:
    """Encode the phrases of a vocabulary, and drop automatic background phrases that mean the same as a class.

    Args:
        backbone: The model that encodes phrases.
        vocabulary: The classes and the background.
        cache: Cache folder for text vectors. None: no cache.
    """
    vectors = _phrase_vectors(backbone, vocabulary, cache)
    dropped = _find_duplicates(vocabulary, vectors)
    kept = vocabulary.drop_background(dropped)
    return Classifier(kept, dropped, np.stack([vectors[_text_of(phrase)] for phrase in kept.phrases]))


def fitted_classifier(backbone: Backbone, fitted: FittedVocabulary) -> Classifier:
    """Return the class vectors of a fit. Raise UsageError if the model's features have another length."""
    width = fitted.vectors.shape[1]
    if width != backbone.embed_dim:
        raise UsageError(
            f"the fitted vectors have {width} dimensions, but the model's features have {backbone.embed_dim}",
            "Fit again with this model.",
        )
    return Classifier(fitted.vocabulary, {}, fitted.vectors, fitted.biases)


#: A phrase and its templates, in whatever class it is.
_Text = tuple[str, tuple[str, ...]]


#: Phrases encoded at a time: 10,000 with 9 templates take 0.1 GB of token ids.
_AT_ONCE = 10_000


def _text_of(phrase: Phrase) -> _Text:
    return phrase.text, phrase.templates


def _phrase_vectors(backbone: Backbone, vocabulary: Vocabulary, cache: Path | None) -> Mapping[_Text, Values]:
    """Return the unit vector [D] of each phrase, and of the general background phrases if the background is automatic."""
    general = _general_phrases(vocabulary) if vocabulary.auto else ()
    phrases = list(dict.fromkeys((*vocabulary.phrases, *general)))  # each is encoded once

    def compute() -> Values:
        groups = ([*group] for _, group in groupby(phrases, lambda phrase: phrase.templates))
        parts = [
            backbone.encode_text([phrase.text for phrase in part], part[0].templates)
            for group in groups
            for part in (group[start : start + _AT_ONCE] for start in range(0, len(group), _AT_ONCE))
        ]
        return np.concatenate([part.cpu().numpy() for part in parts])

    vectors = compute() if cache is None else load_or_compute(cache, backbone, phrases, compute)
    return dict(zip(map(_text_of, phrases), vectors, strict=True))


def _general_phrases(vocabulary: Vocabulary) -> list[Phrase]:
    return [Phrase(text, BACKGROUND, vocabulary.templates) for text in GENERAL_BACKGROUND]


def _find_duplicates(vocabulary: Vocabulary, vectors: Mapping[_Text, Values]) -> Mapping[str, str]:
    """Map each automatic background phrase that means the same as a class to the phrase of that class."""
    if not vocabulary.auto:
        return {}
    general = np.stack([vectors[_text_of(phrase)] for phrase in _general_phrases(vocabulary)])
    named = [phrase for phrase in vocabulary.phrases if phrase.label_id != BACKGROUND]
    classes = np.stack([vectors[_text_of(phrase)] for phrase in named])
    closest = match_synonyms(classes, general, synonym_threshold(general))
    pairs = zip(GENERAL_BACKGROUND, closest.tolist(), strict=True)
    return {text: named[index].text for text, index in pairs if index >= 0 and text in vocabulary.background}


#: Maximum number of files in the cache; those written first are deleted.
_MOST_FILES = 100
_VERSIONS = (__version__, metadata.version("torch"), np.__version__)


def load_or_compute(
    cache: Path, backbone: Backbone, phrases: Sequence[Phrase], compute: Callable[[], Values]
) -> Values:
    """Return the unit vectors of the phrases, [P, D], from the cache, or compute and cache them."""
    key = {
        "versions": _VERSIONS,
        "device": [processor_name(), backbone.device_name],  # others may round differently, and share the folder
        "dtype": backbone.dtype_name,
        "model": file_hashes(backbone.folder),
        "phrases": [[phrase.text, list(phrase.templates)] for phrase in phrases],
    }
    file = cache / "text" / f"{hashlib.sha256(json_bytes(key)).hexdigest()}.npy"
    with suppress(Exception):  # missing, or damaged in any way
        vectors: Values = np.load(file)
        return vectors
    vectors = compute()
    with suppress(TipssegError, OSError):
        with atomic_path(file) as temporary:
            np.save(temporary, vectors)
        for old in sorted(file.parent.glob("*.npy"), key=lambda path: path.stat().st_mtime)[:-_MOST_FILES]:
            old.unlink()
    return vectors
