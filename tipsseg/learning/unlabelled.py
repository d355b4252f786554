"""Compare images with and without masks, to keep a fit to unusual images useful for the others.

Masks of unusual images, for example dark images in a bright set, teach little about the others. Three things protect the others:
the logits of their patches have a prior at the logits of the text (see `Prior.moment`); a word that the text finds in them counts
as known, even if the text does not find it in the images with masks; and patches in which the text is sure of a class that the
masks lack are examples of that class, so that a new word does not spread there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import to_device
from tipsseg.learning.maths import CELLS, Window, cell_logits

#: Sampled patches per image.
_PATCHES = 512

#: A word is known if its uncertainty in images without masks is below this share of its uncertainty at wrong pixels in images with
#: masks. Uncertainty is the mean of 1 - confidence.
_KNOWN_SHARE = 0.65

#: Images with masks are unusual if their uncertainty is more than this many times the other images'. If they are not, the masks
#: alone decide which words are known.
_UNUSUAL_RATIO = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class PatchComparison:
    """Differences between images with and without masks.

    Attributes:
        known: [G], True if images without masks show that the text knows the group's word. All False unless the images with masks
            are unusual.
        unsure: Uncertainty (mean of 1 - confidence) in images with masks, divided by that in images without: about 1 for images
            drawn at random, higher for those that `tipsseg rank` lists first.
    """

    known: NDArray[np.bool_]
    unsure: float


def sample_patches(patches: Tensor) -> Tensor:
    """Sample patches of an image with a fixed seed: [B, h, w, D] -> [n, D] float32 on the CPU."""
    flat = patches.flatten(0, -2)
    drawn = np.sort(np.random.default_rng(0).permutation(len(flat))[:_PATCHES])
    return flat[to_device(drawn, flat.device)].float().cpu()


def second_moment(patches: Tensor) -> Tensor:
    """Return the second moment of the patches, each with a 1 appended: [n, D] -> [D + 1, D + 1]."""
    extended = torch.cat([patches, torch.ones(len(patches), 1)], 1)
    return extended.T @ extended / len(extended)


def compare(windows: Sequence[Window], patches: Tensor, text: Tensor, group_of: Tensor, groups: int) -> PatchComparison:
    """Compare what the text predicts in images with masks and in images without.

    A word is known if the text predicts it in images without masks, with much less uncertainty than at pixels in images with masks
    where that prediction was wrong. For a word without wrong pixels, the wrong pixels of all words count. This avoids an absolute
    threshold on confidence, which would differ between models.

    Args:
        windows: Windows of the images with masks.
        patches: [n, D], patches of the images without masks.
        text: [P, D], the text vectors in logits.
        group_of: [P] int64, the group of each phrase.
        groups: G.
    """
    unlabelled = _sum_uncertainty(patches @ text.T, group_of, torch.ones(len(patches), groups), groups)
    labelled, wrong = torch.zeros(2, groups, dtype=torch.float64), torch.zeros(2, groups, dtype=torch.float64)
    for window in windows:
        logits = cell_logits(window.patches, text, torch.zeros(len(text))).flatten(0, -2)
        shares = torch.zeros(len(logits), groups)
        shares[:, window.groups] = window.shares.flatten(0, -2)
        total = shares.sum(1, keepdim=True).expand(-1, groups)
        labelled += _sum_uncertainty(logits, group_of, total, groups)
        wrong += _sum_uncertainty(logits, group_of, total - shares, groups)
    overall = wrong[1].sum() / wrong[0].sum().clamp(min=1e-9)
    wrong_rates = torch.where(wrong[0] > 0, wrong[1] / wrong[0].clamp(min=1e-9), overall)
    rates = [float(sums[1].sum() / sums[0].sum().clamp(min=1e-9)) for sums in (labelled, unlabelled)]
    unsure = rates[0] / max(rates[1], 1e-9)
    known = (
        (unlabelled[0] > 0) & (unlabelled[1] < _KNOWN_SHARE * wrong_rates * unlabelled[0]) & (unsure > _UNUSUAL_RATIO)
    )
    return PatchComparison(known.numpy(), unsure)


#: An example of a class is a patch whose confidence by the text is at least this.
_SURE = 0.9

#: The number of examples, and their weight together relative to the patches with masks.
_MOST_EXAMPLES, _EXAMPLE_SHARE = 4096, 0.06


def find_examples(
    windows: Sequence[Window], patches: Tensor, text: Tensor, biases: Tensor, group_of: Tensor
) -> list[Window]:
    """Return patches of images without masks in which the text is sure of a class that the masks lack, as windows of one patch.

    Args:
        windows: Windows of the images with masks.
        patches: [n, D], patches of the images without masks.
        text: [P, D], the text vectors in logits.
        biases: [P], their biases.
        group_of: [P] int64, the group of each phrase.
    """
    confidence, best = torch.softmax(patches @ text.T + biases, 1).max(1)
    group = group_of[best]
    shown = torch.cat([window.groups for window in windows]).unique()
    chosen = ((confidence >= _SURE) & ~torch.isin(group, shown)).nonzero()[:, 0]
    chosen = chosen[:: -(-len(chosen) // _MOST_EXAMPLES) or 1]
    labelled = sum(window.shares.shape[0] * window.shares.shape[1] for window in windows)  # cells
    share = torch.full((CELLS, CELLS, 1), min(_EXAMPLE_SHARE * labelled / max(len(chosen), 1), 1.0))
    return [Window(patches[index, None, None], group[index, None], share) for index in chosen.tolist()]


def _sum_uncertainty(logits: Tensor, group_of: Tensor, counts: Tensor, groups: int) -> Tensor:
    """Sum by predicted group, [2, G]: `counts` [n, G] of that group, and the same times 1 - confidence. `logits` are [n, P]."""
    best = group_of[logits.argmax(1)]
    probabilities = torch.zeros(len(logits), groups).index_add_(1, group_of, torch.softmax(logits, 1))
    count = counts.gather(1, best[:, None])[:, 0].double()
    unsure = 1 - probabilities.gather(1, best[:, None])[:, 0].double()
    sums = torch.zeros(2, groups, dtype=torch.float64)
    return sums.index_add_(1, best, torch.stack([count, count * unsure]))
