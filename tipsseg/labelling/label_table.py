"""What the phrases of a vocabulary stand for, as the scores of pixels are turned into label ids by it."""

from __future__ import annotations

from itertools import groupby
from typing import cast

import numpy as np

from tipsseg.labelling.scoring.assign import LabelTable
from tipsseg.types import LabelArray, ignore_id, label_dtype
from tipsseg.vocabulary.vocabulary import Vocabulary


def label_table(vocabulary: Vocabulary, min_confidence: float) -> LabelTable:
    """Return what the phrases stand for; `min_confidence` is that of classes which have none of their own."""
    classes = vocabulary.classes
    groups = [
        (label_id, len(list(group))) for label_id, group in groupby(phrase.label_id for phrase in vocabulary.phrases)
    ]
    own = [min_confidence if each.min_confidence is None else each.min_confidence for each in classes]
    return LabelTable(
        [count for _, count in groups],
        cast(LabelArray, np.array([label_id for label_id, _ in groups], label_dtype(len(classes)))),
        np.array([min_confidence, *own], np.float32),
        ignore_id(len(classes)),
    )
