"""Turn cosine maps into labels and confidences on a GPU; `assign` does this on a CPU.

The results are those of `assign.match`, computed by brute force: the scores of all phrases at all pixels, one tile of the image
at a time. The memory of a tile is bounded for any image and number of phrases. The host waits only when it needs the labels,
and receives a label and a 16-bit confidence per pixel.

It avoids matrix products and convolutions, which may round to TF32 on a GPU.

Shapes: P phrases, G groups (the phrases of one class, or of background), H x W labels, h x w patches, r x c a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import HostCopy, to_device
from tipsseg.labelling.assign import Assignment, LabelTable, allocate_confidence
from tipsseg.labelling.scores import window_weights
from tipsseg.labelling.view import InterpolationWeights, interpolation_weights
from tipsseg.types import LabelArray, TopClasses, WindowPlan

#: Values per tile, phrases x rows x columns, in the image and in the grid that it is resized from: 64 MB in float32, and about four
#: such tensors at a time. Smaller tiles leave a large GPU idle.
_ELEMENTS = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLabels:
    """Labels of an image that are being copied from the device.

    Attributes:
        arriving: A flag, False if a cosine is NaN or infinite, [] bool; label ids, [H, W] uint8 or int16; confidences, [H, W]
            float16; and, if requested, label ids and shares of the best classes, each [K, h, w].
        dtype: Dtype of the label ids. torch lacks some operations on uint16, so those are copied as int16.
    """

    arriving: HostCopy
    dtype: np.dtype[np.unsignedinteger]

    def wait(self) -> tuple[Assignment, TopClasses | None] | None:
        """Wait for the labels, and the best classes of each patch if requested. Return None if a cosine is NaN or infinite."""
        finite, labels, confidence, *top = self.arriving.arrays()
        if not finite:
            return None
        best = TopClasses(cast(LabelArray, top[0].view(self.dtype)), top[1]) if top else None
        converted = allocate_confidence(confidence.shape)
        converted[:] = confidence
        return Assignment(cast(LabelArray, labels.view(self.dtype)), converted), best


class DeviceScorer:
    """Computes labels from cosines on a device."""

    def __init__(self, table: LabelTable, temperature: float, device: torch.device) -> None:
        """Copy the label table to the device.

        Args:
            table: Groups and label ids of the phrases.
            temperature: Temperature of the softmax for confidences.
            device: Any device except a CPU, on which `assign.match` is faster.
        """
        self._dtype = table.label_ids.dtype
        self._temperature = temperature
        self._runs = list(_runs(table.groups))
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
        grid: tuple[int, int] = (0, 0),
        top: int = 0,
    ) -> DeviceLabels:
        """Compute the labels of an image and start copying them to the host, without waiting for the device.

        Args:
            cosines: Cosines at each scale in ascending order, [B, h, w, P] float32, on the device.
            plans: The plan of each scale.
            size: (H, W) of the labels.
            grid: (h, w) of the patches of the whole image, for the best classes.
            top: Number of best classes per patch; 0 for none.

        Returns:
            The labels, equal to those of `assign.match` except for ties within rounding. The confidence is rounded to 16 bits
            before it is compared with minimum confidences.
        """
        maps = _make_maps(cosines, plans)
        labels = self._label_ids.new_empty(size)
        confidence = cosines[0].new_empty(size, dtype=torch.float16)
        for rows, columns, scores in _score_tiles(maps, size):
            region = rows, columns
            labels[region], confidence[region] = self._assign_labels(maps, self._merge_phrases(scores))
        best = self._best_groups(maps, grid, top) if top else ()
        finite = torch.stack([torch.isfinite(values).all() for values in cosines]).all()
        return DeviceLabels(HostCopy(finite, labels, confidence, *best), self._dtype)

    @torch.inference_mode()
    def fetch(self, cosines: Sequence[Tensor], plans: Sequence[WindowPlan], size: tuple[int, int]) -> Assignment:
        """Compute the same labels for a large image, and wait for each tile, so that few labels are on the device at a time."""
        maps = _make_maps(cosines, plans)
        labels, confidence = np.empty(size, self._dtype), allocate_confidence(size)
        for rows, columns, scores in _score_tiles(maps, size):
            region = rows, columns
            ids, shares = self._assign_labels(maps, self._merge_phrases(scores))
            labels[region], confidence[region] = ids.cpu().numpy().view(self._dtype), shares.cpu().numpy()
        return Assignment(cast(LabelArray, labels), confidence)

    def _merge_phrases(self, scores: Tensor) -> Tensor:
        """Return the maximum over the phrases of each group, [P, r, c] -> [G, r, c]."""
        if len(self._runs) == 1 and self._runs[0].phrases == 1:
            return scores
        merged = scores.new_empty(len(self._label_ids), *scores.shape[1:])
        start = first = 0
        for run in self._runs:
            phrases = scores[start : start + run.groups * run.phrases]
            merged[first : first + run.groups] = phrases.view(run.groups, run.phrases, *scores.shape[1:]).amax(1)
            start, first = start + len(phrases), first + run.groups
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
        for rows, columns, scores in _score_tiles(maps, size):
            merged = self._merge_phrases(scores)
            parts = maps.relative_(merged, merged.amax(0), self._temperature)
            parts /= parts.sum(0)
            ordered, index = parts.sort(dim=0, descending=True, stable=True)
            ids[:, rows, columns] = self._label_ids[index[:count]]
            shares[:, rows, columns] = ordered[:count].half()
        return ids, shares


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive groups with the same number of phrases."""

    groups: int
    phrases: int


def _runs(groups: Sequence[int]) -> Iterator[_Run]:
    for phrases, equal in groupby(groups):
        yield _Run(len(list(equal)), phrases)


class _Windows:
    """`scores.WindowScores` on a device: the weighted mean probability over windows."""

    def __init__(self, cosines: Tensor, plan: WindowPlan) -> None:
        """Store the cosines, [windows, h, w, P]."""
        self.size, self.device = plan.size, cosines.device
        self.phrases = cosines.shape[3]
        self._cosines = cosines.permute(0, 3, 1, 2).contiguous()  # [windows, P, h, w]
        self._plan = plan
        self._axis = _axis(cosines.shape[1], plan.side, cosines.device)
        self._own, *self._totals = _window_weights(plan, cosines.device)

    def values(self, rows: slice, columns: slice) -> Tensor:
        """Return the scores of all phrases in a part of the grid, [P, r, c]."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        total = self._cosines.new_zeros(self.phrases, height, width)
        down, across = self._totals[0][rows], self._totals[1][columns]
        side = self._plan.side
        for cosines, (top, left) in zip(self._cosines, self._plan.corners, strict=True):
            y, x = (
                slice(max(part.start, start), min(part.stop, start + side))
                for part, start in ((rows, top), (columns, left))
            )
            if y.start >= y.stop or x.start >= x.stop:
                continue
            here = slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left)
            inside = self._axis.part(here[0].start, here[0].stop), self._axis.part(here[1].start, here[1].stop)
            part = _resize(cosines[:, inside[0].span, inside[1].span], *inside).exp_()
            region = (
                slice(y.start - rows.start, y.stop - rows.start),
                slice(x.start - columns.start, x.stop - columns.start),
            )
            own_down, own_across = (self._own[each] for each in here)
            weight = part.sum(0).mul_((down[region[0]] / own_down)[:, None]).mul_(across[region[1]] / own_across)
            weight.reciprocal_()
            total[:, *region].addcmul_(part, weight)
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
        self._scales = [
            (scale, [_axis(*lengths, self.device) for lengths in zip(scale.size, self.size, strict=True)])
            for scale in scales
        ]

    def values(self, rows: slice, columns: slice) -> Tensor:
        total = torch.zeros(
            self.phrases, rows.stop - rows.start, columns.stop - columns.start, dtype=torch.float32, device=self.device
        )
        for maps, (down, across) in self._scales:
            axes = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            total.add_(maps.logits_(_resize(maps.values(axes[0].span, axes[1].span), *axes)))
        return total.mul_(1 / len(self._scales))

    @staticmethod
    def relative_(scores: Tensor, best: Tensor, temperature: float) -> Tensor:
        return scores.sub_(best).div_(temperature).exp_()


_Maps = _Windows | _Whole | _Fused


def _make_maps(cosines: Sequence[Tensor], plans: Sequence[WindowPlan]) -> _Maps:
    """Create the scores of an image from the cosines of its scales, the finest last."""
    scales = [
        _Whole(values[0]) if plan.whole else _Windows(values, plan) for values, plan in zip(cosines, plans, strict=True)
    ]
    return scales[0] if len(scales) == 1 else _Fused(scales)


def _score_tiles(maps: _Maps, size: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the rows and columns of tiles of an image of `size`, and the scores of all phrases in them, [P, r, c]."""
    down, across = (_axis(*lengths, maps.device) for lengths in zip(maps.size, size, strict=True))
    # A row of a small image depends on many rows of the grid.
    finer = [max(-(-source // length), 1) for source, length in zip(maps.size, size, strict=True)]
    per_pixel = maps.phrases * finer[0] * finer[1]
    width = max(min(_ELEMENTS // (2 * per_pixel), size[1]), 1)
    height = max(min(_ELEMENTS // (width * per_pixel), size[0]), 1)
    for top in range(0, size[0], height):
        rows = slice(top, min(top + height, size[0]))
        for left in range(0, size[1], width):
            columns = slice(left, min(left + width, size[1]))
            axes = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            yield rows, columns, _resize(maps.values(axes[0].span, axes[1].span), *axes)


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Bilinear resizing weights along one axis.

    Attributes:
        weights: The weights on the host.
        low: [n] int64, `weights.low` on the device.
        high: [n] int64, `weights.high` on the device.
        weight: [n] float32, `weights.weight` on the device.
    """

    weights: InterpolationWeights
    low: Tensor
    high: Tensor
    weight: Tensor

    @property
    def span(self) -> slice:
        """Slice of the source that the outputs depend on."""
        return self.weights.span

    def part(self, start: int, stop: int) -> _Axis:
        """Return the weights of outputs start .. stop - 1."""
        tensors = (tensor[start:stop] for tensor in (self.low, self.high, self.weight))
        return _Axis(self.weights.part(start, stop), *tensors)


def _resize(values: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Resize maps [P, r, c], which cover the spans of `rows` and `columns`, to [P, n, m]."""
    # Resize columns first, while there are few rows.
    low, high = (index - columns.span.start for index in (columns.low, columns.high))
    values = torch.lerp(values.index_select(2, low), values.index_select(2, high), columns.weight)  # [P, r, m]
    low, high = (index - rows.span.start for index in (rows.low, rows.high))
    return torch.lerp(values.index_select(1, low), values.index_select(1, high), rows.weight[:, None])


@lru_cache(maxsize=64)
def _axis(source: int, target: int, device: torch.device) -> _Axis:
    weights = interpolation_weights(source, target)
    return _Axis(weights, *(to_device(array, device) for array in (weights.low, weights.high, weights.weight)))


@lru_cache(maxsize=16)
def _window_weights(plan: WindowPlan, device: torch.device) -> list[Tensor]:
    """Return `scores.window_weights` on a device: of a window, then the sums of rows and of columns."""
    own, (down, across) = window_weights(plan)
    return [to_device(weights, device) for weights in (own, down, across)]


def _as_signed(ids: NDArray[np.unsignedinteger]) -> NDArray[np.integer]:
    # Not all devices support torch.uint16.
    return ids.view(np.int16) if ids.dtype == np.uint16 else ids
