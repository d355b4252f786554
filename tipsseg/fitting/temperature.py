"""Find the temperature of the softmax by which confidences are as often right as they say, from masks of a few images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tipsseg.fitting.maths import Window, cell_logits

#: Cells that are looked at, at most, and at a time.
_CELLS, _TOGETHER = 1 << 17, 1 << 14

#: Temperatures are looked for between these shares of the one that there is.
_LOWEST, _HIGHEST = 0.05, 20.0

_BINS = 15
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and how far confidences are from how often they are right.

    Attributes:
        temperature: The temperature that suits all images best.
        before: The expected calibration error with the temperature that there was, 0..1, in 15 bins of confidence.
        after: The same with each image at the temperature that suits the others. None where there is one image alone.
    """

    temperature: float
    before: float
    after: float | None


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Cells of images: `cosines` [M, G] of each group, its best phrase's, `shares` [M, G] of their pixels, and `image` [M]."""

    cosines: Tensor
    shares: Tensor
    image: Tensor

    def of(self, chosen: Tensor) -> _Cells:
        return _Cells(self.cosines[chosen], self.shares[chosen], self.image[chosen])


def calibrate(
    images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor, temperature: float
) -> Calibration:
    """Choose the temperature by which the masks are the most likely.

    Args:
        images: What the windows of each image show, see `windows_of`; each has some.
        vectors: [P, D] float32 on the CPU, compared with the patches.
        biases: [P] float32, added to the cosines.
        group_of: [P] int64, the group of each phrase.
        temperature: What there is.
    """
    cells = _cells(images, vectors, biases, group_of)
    before = _error(cells, torch.tensor(temperature))
    after = None
    if len(images) > 1:
        folds = min(len(images), _FOLDS)
        fold_of = cells.image % folds
        best = torch.tensor([_best(cells.of(fold_of != fold), temperature) for fold in range(folds)])
        after = _error(cells, best[fold_of, None])
    return Calibration(_best(cells, temperature), before, after)


def calibration_error(
    images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor, temperature: float
) -> float:
    """Return the expected calibration error of images at a temperature, 0..1; arguments as of `calibrate`."""
    return _error(_cells(images, vectors, biases, group_of), torch.tensor(temperature))


def _cells(images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor) -> _Cells:
    groups = int(group_of.max()) + 1
    every = max(sum(window.shares[..., 0].numel() for image in images for window in image) // _CELLS, 1)
    cosines, shares, numbers = [], [], []
    for number, image in enumerate(images):
        for window in image:
            values = cell_logits(window.patches, vectors, biases).flatten(0, -2)[::every]  # [m, P]
            best = values.new_full((len(values), groups), -math.inf)
            best.scatter_reduce_(1, group_of.expand(len(values), -1), values, "amax")
            part = torch.zeros(len(values), groups)
            part[:, window.groups] = window.shares.flatten(0, -2)[::every]
            counts = part.sum(1) > 0
            cosines.append(best[counts])
            shares.append(part[counts])
            numbers.append(torch.full((len(shares[-1]),), number))
    return _Cells(torch.cat(cosines), torch.cat(shares), torch.cat(numbers))


def _best(cells: _Cells, temperature: float) -> float:
    """Find the temperature of the smallest cross entropy, by golden section on its logarithm, to 0.1 %."""

    def loss(exponent: float) -> float:
        scale = math.exp(exponent) * temperature
        total = 0.0
        for cosines, shares in zip(cells.cosines.split(_TOGETHER), cells.shares.split(_TOGETHER), strict=True):
            log_p = torch.log_softmax(cosines / scale, 1)
            # A group without phrases is no answer, whatever the mask says.
            total -= float(torch.where(shares > 0, shares * log_p.clamp(min=-1e4), 0.0).double().sum())
        return total

    return temperature * math.exp(_golden(loss, math.log(_LOWEST), math.log(_HIGHEST), 1e-3))


def _golden(value: Callable[[float], float], low: float, high: float, width: float) -> float:
    """Find the one minimum of a function between two ends."""
    ratio = (math.sqrt(5) - 1) / 2
    one, two = high - ratio * (high - low), low + ratio * (high - low)
    at_one, at_two = value(one), value(two)
    while high - low > width:
        if at_one <= at_two:
            high, two, at_two = two, one, at_one
            one = high - ratio * (high - low)
            at_one = value(one)
        else:
            low, one, at_one = one, two, at_two
            two = low + ratio * (high - low)
            at_two = value(two)
    return (low + high) / 2


def _error(cells: _Cells, temperature: Tensor) -> float:
    """Return the expected calibration error at a temperature, or with each cell at its own, [M, 1]."""
    best, group = torch.softmax(cells.cosines / temperature, 1).max(1)
    counts = cells.shares.sum(1).double().numpy()
    bins = np.minimum((best.numpy() * _BINS).astype(np.int64), _BINS - 1)
    weight = np.bincount(bins, counts, _BINS)
    confidence = np.bincount(bins, counts * best.double().numpy(), _BINS)
    right = np.bincount(bins, cells.shares.gather(1, group[:, None])[:, 0].double().numpy(), _BINS)
    return float(np.abs(confidence - right).sum() / max(weight.sum(), 1e-9))
