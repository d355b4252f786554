"""Cosine maps -> winner and confidence of every pixel, band by band. The last place with tensors.

The published protocol merges sliding windows as follows: cosines are resized to the window (bilinear), made to
probabilities by a softmax over phrases without temperature, summed over windows, divided by the number of windows that saw the
pixel, resized to the image (bilinear), and the largest wins. Here the same numbers are made for a band of rows at a time, so
that memory does not depend on the height of the image. Phrases that stand for one thing are merged at the very end, by their
maximum at each pixel, so that the winner is the owner of the best phrase.

Shapes: P phrases, G groups of phrases that stand for one thing, H x W the labels, h x w a patch grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.refine import pamr
from tipsseg.windows import Taps, WindowPlan, bilinear_taps

#: Scores of one band, phrases x rows x columns; 8 million float32 are 32 MB, of which a few live at once.
_BAND_ELEMENTS = 8_000_000

#: Soft maps that are refined at once, maps x rows x columns: 256 MB.
_REFINED_ELEMENTS = 64_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Winners:
    """What won at each pixel.

    group       [H, W] int32, index of the winning group
    confidence  [H, W] float32 in [0, 1], softmax(score / temperature) of that group over all groups
    """

    group: NDArray[np.int32]
    confidence: NDArray[np.float32]


class Maps(Protocol):
    """P maps that can be had by rows, at the size `size` (height, width)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    @property
    def phrases(self) -> int:
        """P."""

    def rows(self, first: int, last: int) -> Tensor:
        """Rows first .. last - 1, [P, last - first, width]."""


class Scores(Maps, Protocol):
    """The scores of one image, at the size that they are made at."""

    def rivals(self, scores: Tensor, best: Tensor) -> Tensor:
        """exp of (score - best score) / temperature, [G, rows, W], in place of `scores`; `best` is [rows, W]."""


class WindowScores:
    """The protocol's "slide" mode: the mean probability over the windows that saw a pixel.

    The confidence takes the mean probability p of a phrase for exp(cosine): softmax(log(p) / temperature). Where a single window
    saw the pixel this is softmax(cosine / temperature) itself, as the denominator of p is common to all phrases.
    """

    def __init__(self, cosines: Tensor, plan: WindowPlan, temperature: float) -> None:
        """`cosines` is [windows, P, h, w] float32, in the order of `plan.corners`."""
        self.size = plan.size
        self.phrases = cosines.shape[1]
        self._cosines = cosines
        self._plan = plan
        self._temperature = temperature

    def rows(self, first: int, last: int) -> Tensor:
        """Mean probabilities of rows first .. last - 1 of the working size, [P, last - first, width]."""
        side, width = self._plan.side, self.size[1]
        vertical = bilinear_taps(self._cosines.shape[2], side)
        total = self._cosines.new_zeros(self.phrases, last - first, width)
        count = self._cosines.new_zeros(last - first, width)
        for cosine, (top, left) in zip(self._cosines, self._plan.corners, strict=True):
            start, stop = max(first, top), min(last, top + side)
            if start >= stop:
                continue
            rows = _resize_rows(cosine, vertical.rows(start - top, stop - top), side)  # [P, stop - start, side]
            total[:, start - first : stop - first, left : left + side] += rows.softmax(0)
            count[start - first : stop - first, left : left + side] += 1
        return total.div_(count)

    def rivals(self, scores: Tensor, best: Tensor) -> Tensor:
        """(p / best p) to the power 1 / temperature; ratios are at most 1, so nothing overflows."""
        return scores.div_(best).log_().div_(self._temperature).exp_()


class WholeScores:
    """The protocol's "whole" mode: cosines of one map of the whole image, without a softmax before the argmax."""

    def __init__(self, cosines: Tensor, temperature: float) -> None:
        """`cosines` is [P, h, w] float32."""
        self.size = (cosines.shape[1], cosines.shape[2])
        self.phrases = cosines.shape[0]
        self._cosines = cosines
        self._temperature = temperature

    def rows(self, first: int, last: int) -> Tensor:
        """Cosines of rows first .. last - 1 of the grid."""
        return self._cosines[:, first:last]

    def rivals(self, scores: Tensor, best: Tensor) -> Tensor:
        """exp of the differences of cosines by the temperature."""
        return scores.sub_(best).div_(self._temperature).exp_()


@torch.inference_mode()
def match(scores: Scores, size: tuple[int, int], groups: Sequence[int]) -> Winners:
    """The winner and its confidence at every pixel of labels of `size` (H, W).

    groups  how many phrases each group has, in the order of the phrases
    """
    winner = np.empty(size, np.int32)
    confidence = np.empty(size, np.float32)
    for band, grouped in _bands(scores, size, groups):
        best, group = grouped.max(0)  # each [rows, W]
        winner[band] = group.cpu().numpy()
        confidence[band] = (1 / scores.rivals(grouped, best).sum(0)).cpu().numpy()
    return Winners(winner, confidence)


@torch.inference_mode()
def match_refined(scores: Scores, image: NDArray[np.uint8], size: tuple[int, int], groups: Sequence[int]) -> Winners:
    """The same after the probabilities of the groups were drawn to the edges of the image (see `refine.pamr`).

    image  [h', w', 3] uint8 RGB; the refinement is made at this size, and its result resized (bilinear) to `size`

    Only groups that win somewhere are refined. The confidence of a pixel is the refined probability of its winner.
    """
    small = (image.shape[0], image.shape[1])
    occurring = sorted(
        {int(group) for _, grouped in _bands(scores, small, groups) for group in grouped.argmax(0).unique()}
    )
    at_once = max(_REFINED_ELEMENTS // (small[0] * small[1]), 1)
    winner = np.zeros(size, np.int32)
    confidence = np.full(size, -1, np.float32)
    for start in range(0, len(occurring), at_once):
        chosen = occurring[start : start + at_once]
        refined = pamr(_probabilities(scores, small, groups, chosen), image)
        for band, resized in _bands(_Refined(refined), size, [1] * len(chosen)):
            best, index = resized.max(0)  # each [rows, W]
            value = best.cpu().numpy()
            wins = value > confidence[band]
            winner[band][wins] = np.array(chosen, np.int32)[index.cpu().numpy()[wins]]
            confidence[band][wins] = value[wins]
    return Winners(winner, confidence)


@torch.inference_mode()
def best_groups(
    scores: Scores, size: tuple[int, int], groups: Sequence[int], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """The best `count` groups at every cell of a grid of `size` (h, w), and softmax(score / temperature) of each over all groups.

    Both are [count, h, w], the best first; of equals the first group comes first.
    """
    index = np.empty((count, *size), np.int64)
    share = np.empty((count, *size), np.float16)
    for band, grouped in _bands(scores, size, groups):
        rivals = scores.rivals(grouped, grouped.amax(0))
        shares, order = (rivals / rivals.sum(0)).sort(dim=0, descending=True, stable=True)  # each [G, rows, w]
        index[:, band] = order[:count].cpu().numpy()
        share[:, band] = shares[:count].cpu().numpy()
    return index, share


def merge_names(scores: Tensor, groups: Sequence[int]) -> Tensor:
    """The maximum over the phrases of each group, [P, ...] -> [G, ...]; may overwrite `scores`."""
    if len(groups) == scores.shape[0]:
        return scores
    firsts = []
    start = 0
    for count in groups:
        if count > 1:
            scores[start] = scores[start : start + count].amax(0)
        firsts.append(start)
        start += count
    return scores[firsts]


@dataclass(frozen=True, slots=True, eq=False)
class _Refined:
    """Refined maps [K, h, w], to be resized like scores."""

    maps: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.maps.shape[1], self.maps.shape[2]

    @property
    def phrases(self) -> int:
        return self.maps.shape[0]

    def rows(self, first: int, last: int) -> Tensor:
        return self.maps[:, first:last]


def _bands(source: Maps, size: tuple[int, int], groups: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """Bands of rows of labels of `size`, each with the scores of its groups, [G, rows, W]."""
    height, width = size
    vertical = bilinear_taps(source.size[0], height)
    step = _band_height(source, size)
    for start in range(0, height, step):
        taps = vertical.rows(start, start + step)
        first, last = int(taps.low[0]), int(taps.high[-1]) + 1
        rows = source.rows(first, last)  # [P, last - first, source width]
        yield (
            slice(start, start + step),
            merge_names(_resize_rows(rows, Taps(taps.low - first, taps.high - first, taps.weight), width), groups),
        )


def _band_height(source: Maps, size: tuple[int, int]) -> int:
    """How many rows of labels a band has, so that neither they nor the rows that they come from are too many scores."""
    height, width = size
    rows = _BAND_ELEMENTS // (source.phrases * width)
    # Two rows of the source make one of the labels, and each further one takes source height / height more.
    spare = _BAND_ELEMENTS // (source.phrases * source.size[1]) - 2
    return max(min(rows, spare * height // source.size[0] + 1), 1)


def _probabilities(scores: Scores, size: tuple[int, int], groups: Sequence[int], chosen: Sequence[int]) -> Tensor:
    """softmax(score / temperature) over all groups, for the chosen ones: [K, h', w']."""
    bands = []
    for _, grouped in _bands(scores, size, groups):
        shares = scores.rivals(grouped, grouped.amax(0))
        bands.append(shares[list(chosen)] / shares.sum(0))
    return torch.cat(bands, 1)


def _resize_rows(maps: Tensor, taps: Taps, width: int) -> Tensor:
    """Bilinear resizing of [P, h, w], for some of the output rows only: [P, rows, width]."""
    weight = torch.from_numpy(taps.weight).to(maps.device)[:, None]  # [rows, 1]
    low, high = (torch.from_numpy(index).to(maps.device) for index in (taps.low, taps.high))
    rows = maps[:, low] * (1 - weight) + maps[:, high] * weight  # [P, rows, w]
    if width == maps.shape[2]:
        return rows
    # Along the rows nothing is left to do: source and target have equally many, so torch weighs each with 1.
    return F.interpolate(rows[None], size=(rows.shape[1], width), mode="bilinear", align_corners=False)[0]
