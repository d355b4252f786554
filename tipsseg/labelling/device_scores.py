"""Turn cosine maps into labels and confidences on a GPU; `assign` does this on a CPU.

The results equal `assign.match`, computed by brute force: the scores of all phrases at all pixels, one tile of the image
at a time. The memory of a tile is bounded for any image and number of phrases. The host waits only when it needs the labels,
and receives a label and a 16-bit confidence per pixel.

It avoids matrix products and convolutions, which may round to TF32 on a GPU.

Shapes: P phrases, G groups (the phrases of one class, or of background), H x W labels, h x w patches, r x c a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import prod
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import HostCopy, free_memory, is_out_of_memory, to_device
from tipsseg.labelling.assign import Assignment, LabelTable, allocate_confidence
from tipsseg.labelling.scores import window_weights
from tipsseg.labelling.view import interpolation_weights
from tipsseg.types import LabelArray, TopClasses, WindowPlan

#: Values per tile, phrases x rows x columns, in the image and in the grid that it is resized from: 64 MB in float32, and about four
#: such tensors at a time. Smaller tiles leave a large GPU idle; where memory runs out, they are halved down to the least.
_ELEMENTS, _LEAST_ELEMENTS = 1 << 24, 1 << 18

#: Labels of a larger image come in bands of about this many pixels, at most four: each is copied while the next one is computed.
_BAND_PIXELS, _BANDS = 1 << 22, 4

#: How much the length of a feature may differ from 1: by less than half of it, if it is stored in 8 bits.
_NORM_ERROR = 0.1

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLabels:
    """Labels of an image that are being copied from the device.

    Attributes:
        arriving: Norms of the features (see `feature_norms`); label ids, [H, W] uint8 or int16; confidences, [H, W] float16; and,
            if requested, label ids and shares of the best classes, each [K, h, w].
        dtype: Dtype of the label ids. torch lacks some operations on uint16, so those are copied as int16.
    """

    arriving: HostCopy
    dtype: np.dtype[np.unsignedinteger]

    def wait(self) -> tuple[Assignment, TopClasses | None] | None:
        """Wait for the labels, and the best classes of each patch if requested. Return None if a feature is no unit vector."""
        norms, labels, confidence, *top = self.arriving.arrays()
        if not are_unit(norms):
            return None
        best = TopClasses(cast(LabelArray, top[0].view(self.dtype)), top[1]) if top else None
        converted = allocate_confidence(confidence.shape)
        converted[:] = confidence
        return Assignment(cast(LabelArray, labels.view(self.dtype)), converted), best


class DeviceScorer:
    """Computes labels from cosines on a device."""

    def __init__(
        self,
        table: LabelTable,
        temperature: float,
        device: torch.device,
        phrases: NDArray[np.intp] | None = None,
        biases: NDArray[np.float32] | None = None,
    ) -> None:
        """Copy the label table to the device.

        Args:
            table: Groups and label ids of the phrases.
            temperature: Temperature of the softmax for confidences.
            device: Any device except a CPU, on which `assign.match` is faster.
            phrases: The phrases, as indices of those in the cosines; None for all.
            biases: Added to their cosines; None for none.
        """
        self._device, self._elements = device, _ELEMENTS
        self._phrases = None if phrases is None else to_device(phrases.astype(np.int64), device)
        self._biases = None if biases is None else to_device(biases, device)
        self._dtype = table.label_ids.dtype
        self._temperature = temperature
        #: Consecutive groups with the same number of phrases: their number, and the number of phrases of each.
        self._runs = [(len(list(equal)), phrases) for phrases, equal in groupby(table.groups)]
        self._label_ids = to_device(_as_signed(table.label_ids), device)
        self._ignore = int(_as_signed(np.array(table.ignore, self._dtype)))
        least = table.min_confidence[table.label_ids]
        self._least = to_device(least, device) if least.any() else None

    @torch.inference_mode()
    def send(
        self,
        cosines: Sequence[Tensor],
        plans: Sequence[WindowPlan],
        size: tuple[int, int],
        norms: Tensor,
        grid: tuple[int, int] = (0, 0),
        top: int = 0,
    ) -> DeviceLabels:
        """Compute the labels of an image and start copying them to the host, without waiting for the device.

        Args:
            cosines: Cosines at each scale in ascending order, [B, h, w, P] float32, on the device.
            plans: The plan of each scale.
            size: (H, W) of the labels.
            norms: See `feature_norms`.
            grid: (h, w) of the patches of the whole image, for the best classes.
            top: Number of best classes per patch; 0 for none.

        Returns:
            The labels, equal to `assign.match` except for ties within rounding. The confidence is rounded to 16 bits
            before it is compared with minimum confidences.
        """
        maps = _make_maps(self._own(cosines), plans)
        labels, confidence = self._label(maps, size, slice(0, size[0]))
        best = self._in_tiles(lambda: self._best_groups(maps, grid, top)) if top else ()
        return DeviceLabels(HostCopy(norms, labels, confidence, *best), self._dtype)

    @torch.inference_mode()
    def fetch(
        self,
        cosines: Sequence[Tensor],
        plans: Sequence[WindowPlan],
        size: tuple[int, int],
        at_work: Callable[[], AbstractContextManager[object]],
    ) -> Assignment:
        """Compute the same labels for a large image, and wait for them band by band. Thread-safe.

        `at_work` returns a context for using the device; it is left while this waits.
        """
        labels, confidence = np.empty(size, self._dtype), allocate_confidence(size)
        bands = min(-(-prod(size) // _BAND_PIXELS), _BANDS, size[0])
        edges = [size[0] * band // bands for band in range(bands + 1)]
        with at_work():
            maps = _make_maps(self._own(cosines), plans)
        before: tuple[slice, HostCopy] | None = None
        for rows in (*map(slice, edges, edges[1:]), None):
            coming = None
            if rows is not None:
                with at_work():
                    coming = rows, HostCopy(*self._label(maps, size, rows))
            if before is not None:
                done, arriving = before
                ids, shares = arriving.arrays()
                labels[done], confidence[done] = ids.view(self._dtype), shares
            before = coming
        return Assignment(cast(LabelArray, labels), confidence)

    def _own(self, cosines: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the cosines of the phrases of this contest."""
        if self._phrases is not None:
            cosines = [scale.index_select(3, self._phrases) for scale in cosines]
        return cosines if self._biases is None else [scale + self._biases for scale in cosines]

    def _label(self, maps: _Maps, size: tuple[int, int], rows: slice) -> tuple[Tensor, Tensor]:
        """Return the label ids and the confidences of some rows of an image of `size`, each [r, W]."""
        labels = self._label_ids.new_empty(rows.stop - rows.start, size[1])
        confidence = torch.empty(labels.shape, dtype=torch.float16, device=self._device)

        def compute() -> None:
            for down, columns, scores in _score_tiles(maps, size, rows, self._elements):
                region = slice(down.start - rows.start, down.stop - rows.start), columns
                labels[region], confidence[region] = self._assign_labels(maps, self._merge_phrases(scores))

        self._in_tiles(compute)
        return labels, confidence

    def _in_tiles(self, compute: Callable[[], _Result]) -> _Result:
        """Call a function, again with smaller tiles where the memory of the device runs out."""
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._elements <= _LEAST_ELEMENTS:
                    raise
            # Outside of the except block, in which the handled error still references the memory.
            self._elements //= 4
            free_memory(self._device)

    def _merge_phrases(self, scores: Tensor) -> Tensor:
        """Return the maximum over the phrases of each group, [P, r, c] -> [G, r, c]."""
        if len(scores) == len(self._label_ids):
            return scores
        merged = scores.new_empty(len(self._label_ids), *scores.shape[1:])
        start = first = 0
        for groups, count in self._runs:
            phrases = scores[start : start + groups * count]
            merged[first : first + groups] = phrases.view(groups, count, *scores.shape[1:]).amax(1)
            start, first = start + len(phrases), first + groups
        return merged

    def _assign_labels(self, maps: _Maps, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return label ids and confidences of a tile, each [r, c], from the scores of its groups [G, r, c], in place."""
        best, index = scores.max(0)  # the first of equal groups
        confidence = maps.relative_(scores, best, self._temperature).sum(0).reciprocal_().half()
        labels = self._label_ids[index]
        if self._least is not None:
            labels.masked_fill_(confidence.float() < self._least[index], self._ignore)
        return labels, confidence

    def _best_groups(self, maps: _Maps, size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
        """Return label ids and shares of the best groups at each cell of a grid, each [K, h, w], like `assign.best_groups`."""
        count = min(count, len(self._label_ids))
        ids = self._label_ids.new_empty(count, *size)
        shares = torch.empty(count, *size, dtype=torch.float16, device=ids.device)
        for rows, columns, scores in _score_tiles(maps, size, slice(0, size[0]), self._elements):
            merged = self._merge_phrases(scores)
            parts = maps.relative_(merged, merged.amax(0), self._temperature)
            parts /= parts.sum(0)
            ordered, index = parts.sort(dim=0, descending=True, stable=True)
            ids[:, rows, columns] = self._label_ids[index[:count]]
            shares[:, rows, columns] = ordered[:count].half()
        return ids, shares


class _Windows:
    """`scores.WindowScores` on a device: the weighted mean probability over windows."""

    def __init__(self, cosines: Tensor, plan: WindowPlan) -> None:
        """Store the cosines, [windows, h, w, P]."""
        self.size, self.device = plan.size, cosines.device
        self.phrases = cosines.shape[3]
        self._cosines = cosines.permute(0, 3, 1, 2).contiguous()  # [windows, P, h, w]
        self._plan = plan
        self._weights = _window_weights(plan, cosines.device)

    def values(self, rows: slice, columns: slice) -> Tensor:
        """Return the scores of all phrases in a part of the grid, [P, r, c]."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        total = self._cosines.new_zeros(self.phrases, height, width)
        side, corners = self._plan.side, self._plan.corners

        def needed(index: int) -> tuple[int, int, int, int]:
            """Return the rows and columns of a window that are in the part: top, left, bottom, right."""
            top, left = corners[index]
            bottom, right = min(rows.stop - top, side), min(columns.stop - left, side)
            return max(rows.start - top, 0), max(columns.start - left, 0), bottom, right

        # Neighbours of which the same is needed go together: mostly all windows.
        for (y, x, bottom, right), group in groupby(range(len(corners)), needed):
            if y >= bottom or x >= right:
                continue
            windows = [*group]
            several = slice(windows[0], windows[-1] + 1)
            down = _axis(self._cosines.shape[2], side, y, bottom, self.device)
            across = _axis(self._cosines.shape[3], side, x, right, self.device)
            parts = _resize(self._cosines[several, :, down.span, across.span], down, across).exp_()  # [n, P, r, c]
            weights = self._weights[several, y:bottom, x:right] / parts.sum(1)  # [n, r, c]
            for part, weight, index in zip(parts, weights, windows, strict=True):
                top, left = corners[index][0] + y - rows.start, corners[index][1] + x - columns.start
                total[:, top : top + bottom - y, left : left + right - x].addcmul_(part, weight)
        return total

    @staticmethod
    def logits_(scores: Tensor) -> Tensor:
        """Convert scores to logits in place."""
        return scores.log_()

    @staticmethod
    def relative_(scores: Tensor, best: Tensor, temperature: float) -> Tensor:
        """Convert scores [G, r, c] in place to exp((logit - best logit) / temperature), where a logit is log(score)."""
        return scores.div_(best).pow_(1 / temperature)


class _Whole:
    """`scores.WholeScores` on a device: cosines of the whole image."""

    def __init__(self, cosines: Tensor) -> None:
        """Store the cosines, [h, w, P]."""
        self.size, self.device = (cosines.shape[0], cosines.shape[1]), cosines.device
        self.phrases = cosines.shape[2]
        self._cosines = cosines.permute(2, 0, 1).contiguous()  # [P, h, w]

    def values(self, rows: slice, columns: slice) -> Tensor:
        return self._cosines[:, rows, columns]

    @staticmethod
    def logits_(scores: Tensor) -> Tensor:
        return scores

    @staticmethod
    def relative_(scores: Tensor, best: Tensor, temperature: float) -> Tensor:
        return scores.sub_(best).div_(temperature).exp_()


class _Fused:
    """`scores.FusedScores` on a device: the mean of the logits over scales."""

    def __init__(self, scales: Sequence[_Windows | _Whole]) -> None:
        """Store the scales, the finest last."""
        finest = scales[-1]
        self.size, self.device, self.phrases = finest.size, finest.device, finest.phrases
        self._scales = scales

    def values(self, rows: slice, columns: slice) -> Tensor:
        total = torch.zeros(
            self.phrases, rows.stop - rows.start, columns.stop - columns.start, dtype=torch.float32, device=self.device
        )
        for maps in self._scales:
            total.add_(maps.logits_(_resized(maps, self.size, rows, columns)))
        return total.mul_(1 / len(self._scales))

    relative_ = staticmethod(_Whole.relative_)


_Maps = _Windows | _Whole | _Fused


def _make_maps(cosines: Sequence[Tensor], plans: Sequence[WindowPlan]) -> _Maps:
    """Create the scores of an image from the cosines of its scales, the finest last."""
    scales = [
        _Whole(values[0]) if plan.whole else _Windows(values, plan) for values, plan in zip(cosines, plans, strict=True)
    ]
    return scales[0] if len(scales) == 1 else _Fused(scales)


def _score_tiles(
    maps: _Maps, size: tuple[int, int], rows: slice, elements: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the rows and columns of tiles in rows of an image of `size`, and the scores of all phrases in them, [P, r, c]."""
    # A row of a small image depends on many rows of the grid.
    finer = [max(-(-source // length), 1) for source, length in zip(maps.size, size, strict=True)]
    per_pixel = maps.phrases * finer[0] * finer[1]
    width = max(min(elements // (2 * per_pixel), size[1]), 1)
    height = max(min(elements // (width * per_pixel), size[0]), 1)
    for top in range(rows.start, rows.stop, height):
        for left in range(0, size[1], width):
            tile = slice(top, min(top + height, rows.stop)), slice(left, min(left + width, size[1]))
            yield *tile, _resized(maps, size, *tile)


def _resized(maps: _Maps, size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    """Return the scores of all phrases in a part of an image of `size`, [P, r, c]."""
    down = _axis(maps.size[0], size[0], rows.start, rows.stop, maps.device)
    across = _axis(maps.size[1], size[1], columns.start, columns.stop, maps.device)
    return _resize(maps.values(down.span, across.span), down, across)


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Bilinear resizing weights of some outputs along one axis.

    Attributes:
        span: Slice of the source that they depend on.
        low: [n] int64, on the device: the index in the span before each output.
        high: [n] int64: the index after it.
        weight: [n] float32: the weight of `high`.
    """

    span: slice
    low: Tensor
    high: Tensor
    weight: Tensor


def _resize(values: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Resize maps [..., r, c], which cover the spans of `rows` and `columns`, to [..., n, m]."""
    # Resize columns first, while there are few rows.
    values = torch.lerp(values.index_select(-1, columns.low), values.index_select(-1, columns.high), columns.weight)
    return torch.lerp(values.index_select(-2, rows.low), values.index_select(-2, rows.high), rows.weight[:, None])


@lru_cache(maxsize=512)
def _axis(source: int, target: int, start: int, stop: int, device: torch.device) -> _Axis:
    """Return the weights of outputs start .. stop - 1 of `target` ones. Images of a folder share sizes, and so tiles."""
    weights = interpolation_weights(source, target).part(start, stop)
    span = weights.span
    low, high = (to_device(index - span.start, device) for index in (weights.low, weights.high))
    return _Axis(span, low, high, to_device(weights.weight, device))


@lru_cache(maxsize=16)
def _window_weights(plan: WindowPlan, device: torch.device) -> Tensor:
    """Return the weight of each pixel of each window [windows, side, side]: see `scores.window_weights`."""
    own, totals = window_weights(plan)
    shares = [
        [own / total[start : start + plan.side] for total, start in zip(totals, corner, strict=True)]
        for corner in plan.corners
    ]
    return to_device(np.stack([np.multiply.outer(*each).astype(np.float32) for each in shares]), device)


def feature_norms(scales: Sequence[Tensor]) -> Tensor:
    """Return the least and the largest length of the patch features at some scales [B, h, w, D], on their device: [S, 2]."""
    return torch.stack([torch.stack(torch.linalg.vector_norm(patches, dim=-1).aminmax()) for patches in scales])


def are_unit(norms: NDArray[np.float32]) -> bool:
    """Return True if lengths are about 1. A device whose work failed leaves zeros, or anything."""
    return bool((np.abs(norms - 1) < _NORM_ERROR).all())  # False for NaN


def _as_signed(ids: NDArray[np.unsignedinteger]) -> NDArray[np.integer]:
    # Not all devices support torch.uint16.
    return ids.view(np.int16) if ids.dtype == np.uint16 else ids
