"""Learn from masks, as `tipsseg fit` does: fit class vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.learning.vectors import Fit
from tipsseg.verbs.fit import fit_folder
from tipsseg.vocabulary.fitted import FittedVocabulary

if TYPE_CHECKING:
    from tipsseg.learning.fit import fit

__all__ = [
    "Fit",
    "FittedVocabulary",
    "fit",
    "fit_folder",
]


def __getattr__(name: str) -> object:
    if name == "fit":  # imports torch
        from tipsseg.learning.fit import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
