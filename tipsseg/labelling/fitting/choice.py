"""What each class is made from, and how strongly it is drawn there.

For each class one of three is taken: its text vector as it is, a vector that is drawn towards it strongly, or, for words that the
text tower does not know, a vector that is drawn towards nothing. Leaving images out decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.labelling.fitting.maths import Prior, Window, confusion, solve
from tipsseg.vocabulary.fitted import ClassFit

#: Precision of the prior of a class that the text helps with, in patches; its bias is held as strongly.
_STRONG = 10.0
#: The same of a class that is learnt from masks alone: its vector, and its bias.
_WEAK, _WEAK_BIAS = 0.3, 0.1
#: How much more than by their area rare classes count, with the text and without.
_BALANCE, _WEAK_BALANCE = 0.3, 0.5
#: A class leaves its text where that finds less than this share of the IoU of masks alone, or less than this IoU at all.
_SHARE, _UNKNOWN = 0.5, 0.1
#: More images are left out several at a time.
_FOLDS = 5

Ious = NDArray[np.float64]


def choose_and_fit(
    images: Sequence[Sequence[Window]], group_of: Tensor, text: Tensor, names: Sequence[str]
) -> tuple[Tensor, Tensor, tuple[ClassFit, ...]]:
    """Choose what each class is made from, fit, and score: weights [P, D], biases [P], scores."""
    groups = len(names)
    everything = [window for image in images for window in image]
    counts = np.zeros(groups, np.int64)
    for image in images:
        counts[torch.cat([window.groups for window in image]).unique().numpy()] += 1
    present = counts > 0
    by_text = _ious(confusion(everything, text, torch.zeros(len(text)), group_of))
    weak = np.zeros(groups, bool)
    kept = ~present
    found: Ious | None = None
    if len(images) == 1:
        weak = present & (by_text < _UNKNOWN)
    else:
        alone = _left_out(images, group_of, text, present, kept)
        weak = present & (by_text < np.maximum(_SHARE * alone, _UNKNOWN))
        found = _left_out(images, group_of, text, weak, kept) if not (weak == present).all() else alone
        worse = present & ~weak & (found < by_text)
        if worse.any():
            kept = kept | worse
            found = _left_out(images, group_of, text, weak, kept)
    weights, biases = _fitted(everything, group_of, text, weak, kept)
    has_phrases = set(group_of.tolist())
    scores = tuple(
        ClassFit(
            name,
            int(counts[group]),
            float(by_text[group]) if present[group] else None,
            float(found[group]) if found is not None and present[group] else None,
            "text" if kept[group] else "masks" if weak[group] else "text and masks",
        )
        for group, name in enumerate(names)
        if group in has_phrases
    )
    return weights, biases, scores


def _left_out(
    images: Sequence[Sequence[Window]],
    group_of: Tensor,
    text: Tensor,
    weak: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> Ious:
    """The IoU of each group, with each image labelled by a fit without it."""
    folds = min(len(images), _FOLDS)
    total = np.zeros((len(weak), len(weak)))
    for fold in range(folds):
        rest = [window for number, image in enumerate(images) if number % folds != fold for window in image]
        out = [window for image in images[fold::folds] for window in image]
        total += confusion(out, *_fitted(rest, group_of, text, weak, kept), group_of)
    return _ious(total)


def _fitted(
    windows: Sequence[Window],
    group_of: Tensor,
    text: Tensor,
    weak: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> tuple[Tensor, Tensor]:
    is_weak, is_kept = torch.from_numpy(weak)[group_of], torch.from_numpy(kept)[group_of]
    strength = torch.where(is_weak, _WEAK, _STRONG)
    strength[is_kept] = torch.inf
    prior = Prior(torch.where(is_weak[:, None], 0.0, text), strength, torch.where(is_weak, _WEAK_BIAS, _STRONG))
    return solve(windows, group_of, prior, _WEAK_BALANCE if weak.any() else _BALANCE)


def _ious(table: NDArray[np.float64]) -> Ious:
    """Of a confusion [G, G]; 0 for what does not occur."""
    both = np.diag(table)
    return both / np.maximum(table.sum(0) + table.sum(1) - both, 1e-9)
