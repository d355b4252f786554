"""Learn from images without masks what the images are like that the fit is for.

Masks of images that are unlike the others, as dark ones among clear ones, say little of the others. Two things keep a fit from
serving these badly: the logits of their patches are drawn towards those of the text, see `Prior.moment`; and a word that the text
finds in them is known, even where the text does not find it in the images with masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.transfers import to_device
from tipsseg.fitting.maths import Window, cell_logits

#: So many patches of an image are taken.
_PATCHES = 512

#: A word is known where the text is so much less unsure of it in images without masks than where it was wrong in those with
#: masks, as a ratio of means of 1 - confidence.
_SURER = 0.65

#: Images with masks are unlike the others where the text is so many times as unsure in them. Else masks say what the text is worth.
_UNLIKE = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The difference between images with masks and images without.

    Attributes:
        known: [G], whether the text knows the word of a group, by what it finds in the images without masks; False for all where
            those with masks are like these.
        unsure: How unsure the text is in the images with masks, over how unsure in those without, as means of 1 - confidence:
            about 1 for images drawn at random, and more for those that `tipsseg rank` puts first.
    """

    known: NDArray[np.bool_]
    unsure: float


def some_patches(patches: Tensor) -> Tensor:
    """Draw patches of an image at random, always the same: [B, h, w, D] -> [n, D] float32 on the CPU."""
    flat = patches.flatten(0, -2)
    drawn = np.sort(np.random.default_rng(0).permutation(len(flat))[:_PATCHES])
    return flat[to_device(drawn, flat.device)].float().cpu()


def second_moment(patches: Tensor) -> Tensor:
    """Return the mean of the products of two features of a patch, with a 1 behind the features: [n, D] -> [D + 1, D + 1]."""
    longer = torch.cat([patches, torch.ones(len(patches), 1)], 1)
    return longer.T @ longer / len(longer)


def compare(windows: Sequence[Window], patches: Tensor, text: Tensor, group_of: Tensor, groups: int) -> Comparison:
    """Compare what the text finds in images with masks and in images without.

    A word counts as known where the text finds it in images without masks, and is much surer of it there than where it was wrong
    about it in those with masks; where it never gave it there, than where it was wrong about any. So no confidence counts as high
    in itself: what it is worth differs between models.

    Args:
        windows: Of the images with masks.
        patches: [n, D] of images without.
        text: [P, D], the text vectors in logits.
        group_of: [P] int64, the group of each phrase.
        groups: G.
    """
    there = _unsure(patches @ text.T, group_of, torch.ones(len(patches), groups), groups)
    here, wrong = torch.zeros(2, groups, dtype=torch.float64), torch.zeros(2, groups, dtype=torch.float64)
    for window in windows:
        logits = cell_logits(window.patches, text, torch.zeros(len(text))).flatten(0, -2)
        shares = torch.zeros(len(logits), groups)
        shares[:, window.groups] = window.shares.flatten(0, -2)
        total = shares.sum(1, keepdim=True).expand(-1, groups)
        here += _unsure(logits, group_of, total, groups)
        wrong += _unsure(logits, group_of, total - shares, groups)
    of_any = wrong[1].sum() / wrong[0].sum().clamp(min=1e-9)
    own = torch.where(wrong[0] > 0, wrong[1] / wrong[0].clamp(min=1e-9), of_any)
    rates = [float(found[1].sum() / found[0].sum().clamp(min=1e-9)) for found in (here, there)]
    unsure = rates[0] / max(rates[1], 1e-9)
    known = (there[0] > 0) & (there[1] < _SURER * own * there[0]) & (unsure > _UNLIKE)
    return Comparison(known.numpy(), unsure)


def _unsure(logits: Tensor, group_of: Tensor, counts: Tensor, groups: int) -> Tensor:
    """Return for each group how much of `counts` [n, G] logits [n, P] give it, and that times 1 - confidence; [2, G]."""
    best = group_of[logits.argmax(1)]
    probabilities = torch.zeros(len(logits), groups).index_add_(1, group_of, torch.softmax(logits, 1))
    count = counts.gather(1, best[:, None])[:, 0].double()
    unsure = 1 - probabilities.gather(1, best[:, None])[:, 0].double()
    found = torch.zeros(2, groups, dtype=torch.float64)
    return found.index_add_(1, best, torch.stack([count, count * unsure]))
