"""Cosine maps -> winning phrase and confidence of every pixel, band by band. The last place with tensors.

The published protocol merges sliding windows as follows: cosines are resized to the window (bilinear), made to
probabilities by a softmax over phrases without temperature, summed over windows, divided by the number of windows that saw the
pixel, resized to the image (bilinear), and the largest wins. Here the same numbers are made for a band of rows at a time, so
that memory does not depend on the height of the image.

Shapes: P phrases, H x W the image, h x w a patch grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.windows import Taps, WindowPlan, bilinear_taps

#: Scores of one band, phrases x rows x columns; 8 million float32 are 32 MB, of which a few live at once.
_BAND_ELEMENTS = 8_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Winners:
    """What won at each pixel.

    phrase      [H, W] int32, index of the winning phrase
    confidence  [H, W] float32 in [0, 1], softmax(cosine / temperature) of that phrase over all phrases
    """

    phrase: NDArray[np.int32]
    confidence: NDArray[np.float32]


@torch.inference_mode()
def match_windows(cosines: Tensor, plan: WindowPlan, size: tuple[int, int], temperature: float) -> Winners:
    """Merge the windows of one image, by the protocol's "slide" mode.

    cosines  [windows, P, h, w] float32, in the order of `plan.corners`
    size     (H, W) of the labels

    The confidence takes the merged probability p of a phrase for exp(cosine): softmax(log(p) / temperature). Where a single window
    saw the pixel this is softmax(cosine / temperature) itself, as the denominator of p is common to all phrases.
    """
    vertical = bilinear_taps(plan.size[0], size[0])
    winners = _Collector(size, cosines.shape[1])
    for start, stop in winners.bands():
        taps = vertical.rows(start, stop)
        first, last = int(taps.low[0]), int(taps.high[-1]) + 1
        merged = _merge_rows(cosines, plan, first, last)  # [P, last - first, working width]
        scores = _resize_rows(merged, Taps(taps.low - first, taps.high - first, taps.weight), size[1])
        best, phrase = scores.max(0)  # each [rows, W]
        # sum of (p / p_best) ** (1 / T), in place; ratios are at most 1, so nothing overflows
        rivals = scores.div_(best).log_().div_(temperature).exp_().sum(0)
        winners.put(start, stop, phrase, 1 / rivals)
    return winners.result()


@torch.inference_mode()
def match_whole(cosines: Tensor, size: tuple[int, int], temperature: float) -> Winners:
    """Label from one map of the whole image, by the protocol's "whole" mode: no softmax before the argmax.

    cosines  [P, h, w] float32
    size     (H, W) of the labels
    """
    vertical = bilinear_taps(cosines.shape[1], size[0])
    winners = _Collector(size, cosines.shape[0])
    for start, stop in winners.bands():
        scores = _resize_rows(cosines, vertical.rows(start, stop), size[1])  # [P, rows, W]
        best, phrase = scores.max(0)  # each [rows, W]
        rivals = scores.sub_(best).div_(temperature).exp_().sum(0)
        winners.put(start, stop, phrase, 1 / rivals)
    return winners.result()


class _Collector:
    """Bands of rows, and the arrays that they are gathered in."""

    def __init__(self, size: tuple[int, int], phrases: int) -> None:
        self._height, width = size
        self._rows = max(_BAND_ELEMENTS // (phrases * width), 1)
        self._phrase = np.empty(size, np.int32)
        self._confidence = np.empty(size, np.float32)

    def bands(self) -> list[tuple[int, int]]:
        """(start, stop) of each band."""
        return [(start, min(start + self._rows, self._height)) for start in range(0, self._height, self._rows)]

    def put(self, start: int, stop: int, phrase: Tensor, confidence: Tensor) -> None:
        self._phrase[start:stop] = phrase.cpu().numpy()
        self._confidence[start:stop] = confidence.cpu().numpy()

    def result(self) -> Winners:
        return Winners(self._phrase, self._confidence)


def _merge_rows(cosines: Tensor, plan: WindowPlan, first: int, last: int) -> Tensor:
    """Mean probability of each phrase in rows first .. last - 1 of the working size, [P, last - first, working width]."""
    side, width = plan.side, plan.size[1]
    vertical = bilinear_taps(cosines.shape[2], side)
    total = cosines.new_zeros(cosines.shape[1], last - first, width)
    count = cosines.new_zeros(last - first, width)
    for cosine, (top, left) in zip(cosines, plan.corners, strict=True):
        start, stop = max(first, top), min(last, top + side)
        if start >= stop:
            continue
        rows = _resize_rows(cosine, vertical.rows(start - top, stop - top), side)  # [P, stop - start, side]
        total[:, start - first : stop - first, left : left + side] += rows.softmax(0)
        count[start - first : stop - first, left : left + side] += 1
    return total.div_(count)


def _resize_rows(maps: Tensor, taps: Taps, width: int) -> Tensor:
    """Bilinear resizing of [P, h, w], for some of the output rows only: [P, rows, width]."""
    weight = torch.from_numpy(taps.weight).to(maps.device)[:, None]  # [rows, 1]
    low, high = (torch.from_numpy(index).to(maps.device) for index in (taps.low, taps.high))
    rows = maps[:, low] * (1 - weight) + maps[:, high] * weight  # [P, rows, w]
    if width == maps.shape[2]:
        return rows
    # Along the rows nothing is left to do: source and target have equally many, so torch weighs each with 1.
    return F.interpolate(rows[None], size=(rows.shape[1], width), mode="bilinear", align_corners=False)[0]
