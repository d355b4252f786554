"""Learn from masks, as `tipsseg fit` does: fit class vectors, or choose minimum confidences."""

from __future__ import annotations

from tipsseg.commands.fit import Fit, fit_folder, fit_truths
from tipsseg.commands.thresholds import Thresholds, fit_thresholds
from tipsseg.learning.fit import fit
from tipsseg.vocabulary.fitted import FittedVocabulary

__all__ = [
    "Fit",
    "FittedVocabulary",
    "Thresholds",
    "fit",
    "fit_folder",
    "fit_thresholds",
    "fit_truths",
]
