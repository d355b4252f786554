"""Calibrate the temperature of the softmax on masks of a few images, so that confidence matches accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tipsseg.fitting.maths import Window, cell_logits

#: Maximum number of sampled cells, and number of cells per batch.
_CELLS, _BATCH = 1 << 17, 1 << 14

#: Bounds of the search, relative to the current temperature.
_LOWEST, _HIGHEST = 0.05, 20.0

_BINS = 15
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibrated temperature and its calibration error.

    Attributes:
        temperature: The best temperature for all images.
        before: Expected calibration error at the original temperature, 0..1, with 15 bins of confidence.
        after: The same by cross-validation, with each image at the best temperature for the others. None for a single image.
    """

    temperature: float
    before: float
    after: float | None


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Sampled cells: `cosines` [M, G] of the best phrase of each group, `shares` [M, G] of the pixels, `image` [M]."""

    cosines: Tensor
    shares: Tensor
    image: Tensor

    def select(self, mask: Tensor) -> _Cells:
        return _Cells(self.cosines[mask], self.shares[mask], self.image[mask])


def calibrate(
    images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor, temperature: float
) -> Calibration:
    """Find the temperature that maximises the likelihood of the masks.

    Args:
        images: The windows of each image, at least one, see `make_windows`.
        vectors: [P, D] float32 on the CPU, class vectors.
        biases: [P] float32, added to the cosines.
        group_of: [P] int64, the group of each phrase.
        temperature: The original temperature.
    """
    cells = _sample_cells(images, vectors, biases, group_of)
    before = _error(cells, torch.tensor(temperature))
    after = None
    if len(images) > 1:
        folds = min(len(images), _FOLDS)
        fold_of = cells.image % folds
        best = torch.tensor([_best_temperature(cells.select(fold_of != fold), temperature) for fold in range(folds)])
        after = _error(cells, best[fold_of, None])
    return Calibration(_best_temperature(cells, temperature), before, after)


def calibration_error(
    images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor, temperature: float
) -> float:
    """Return the expected calibration error of images at a temperature, 0..1. See `calibrate` for the arguments."""
    return _error(_sample_cells(images, vectors, biases, group_of), torch.tensor(temperature))


def _sample_cells(images: Sequence[Sequence[Window]], vectors: Tensor, biases: Tensor, group_of: Tensor) -> _Cells:
    groups = int(group_of.max()) + 1
    stride = max(sum(window.shares[..., 0].numel() for image in images for window in image) // _CELLS, 1)
    cosines, shares, numbers = [], [], []
    for number, image in enumerate(images):
        for window in image:
            values = cell_logits(window.patches, vectors, biases).flatten(0, -2)[::stride]  # [m, P]
            best = values.new_full((len(values), groups), -math.inf)
            best.scatter_reduce_(1, group_of.expand(len(values), -1), values, "amax")
            part = torch.zeros(len(values), groups)
            part[:, window.groups] = window.shares.flatten(0, -2)[::stride]
            counts = part.sum(1) > 0
            cosines.append(best[counts])
            shares.append(part[counts])
            numbers.append(torch.full((len(shares[-1]),), number))
    return _Cells(torch.cat(cosines), torch.cat(shares), torch.cat(numbers))


def _best_temperature(cells: _Cells, temperature: float) -> float:
    """Find the temperature with the smallest cross entropy, by golden-section search on its logarithm, to 0.1 %."""

    def loss(exponent: float) -> float:
        scale = math.exp(exponent) * temperature
        total = 0.0
        for cosines, shares in zip(cells.cosines.split(_BATCH), cells.shares.split(_BATCH), strict=True):
            log_p = torch.log_softmax(cosines / scale, 1)
            # A group without phrases has log-probability -inf, even if the mask has its pixels.
            total -= float(torch.where(shares > 0, shares * log_p.clamp(min=-1e4), 0.0).double().sum())
        return total

    return temperature * math.exp(_golden_section(loss, math.log(_LOWEST), math.log(_HIGHEST), 1e-3))


def _golden_section(function: Callable[[float], float], low: float, high: float, width: float) -> float:
    """Find the minimum of a unimodal function between `low` and `high`, to `width`."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > width:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _error(cells: _Cells, temperature: Tensor) -> float:
    """Return the expected calibration error at one temperature, or at one temperature per cell, [M, 1]."""
    best, group = torch.softmax(cells.cosines / temperature, 1).max(1)
    counts = cells.shares.sum(1).double().numpy()
    bins = np.minimum((best.numpy() * _BINS).astype(np.int64), _BINS - 1)
    weight = np.bincount(bins, counts, _BINS)
    confidence = np.bincount(bins, counts * best.double().numpy(), _BINS)
    right = np.bincount(bins, cells.shares.gather(1, group[:, None])[:, 0].double().numpy(), _BINS)
    return float(np.abs(confidence - right).sum() / max(weight.sum(), 1e-9))
