"""Estimates of the logits of phrases in blocks of pixels, for the phrases that matter there: who wins, and how sure that is.

Everything is done for many blocks at once, which stand along the last axis of all arrays.

Shapes: K phrases of a block, h x w pixels of a block (or w x h: the outer axis first), B blocks, i x j control points of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.candidates import Cells
from tipsseg.labelling.cells import Axis, Indices
from tipsseg.labelling.resample import Values
from tipsseg.types import LabelArray

#: Phrases x pixels of the blocks that are scored at once: half a MB, for the cache of a core. But no fewer blocks.
_CHUNK, _LEAST_BLOCKS = 1 << 17, 256

#: Temperatures that the difference of two estimates may be off by, above which exact scores are made in place of all of them.
_COARSE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What wins at some pixels; all arrays have the same shape.

    Attributes:
        places: The pixels, counted row by row. One may be named more than once.
        labels: The label id of the winner where it is decided, else 0.
        share: float32, the share of the winner.
        open: Where estimates do not decide.
    """

    places: Indices
    labels: LabelArray
    share: Values
    open: NDArray[np.bool_]


class Estimator:
    """Makes estimates of one image."""

    def __init__(self, axes: tuple[Axis, Axis], temperature: float, owners: Indices, label_ids: LabelArray) -> None:
        """Keep what all estimates need.

        Args:
            axes: The rows and columns of the image.
            temperature: That of the softmax.
            owners: [P], the group of each phrase, ascending.
            label_ids: Of the groups.
        """
        self._axes = axes
        self._width = int(axes[1].start[-1] + axes[1].pixels[-1])
        self._temperature = temperature
        self._owners = owners
        self._label_ids = label_ids
        self._several = len(label_ids) < len(owners)
        self._scratch = _Scratch()

    def estimates(self, cells: Cells) -> Iterator[Estimate]:
        """What wins in the blocks of these cells."""
        for cell, down, across in self._blocks(cells):
            controls = cells.controls[..., cell] * np.float32(1 / self._temperature)
            rows, columns = self._axes
            outer = _Part(rows, down, len(controls), self._width)
            inner = _Part(columns, across, controls.shape[1], 1)
            if controls.shape[1] < len(controls):
                # There are more pixels by the time that the outer axis is made.
                outer, inner, controls = inner, outer, controls.swapaxes(0, 1)
            contest = _Contest(
                self._owners[cells.phrases[:, cell]],
                np.arange(len(cells.phrases))[:, None] >= cells.counts[cell],
                np.broadcast_to(cells.error[cell] * np.float32(1 / self._temperature), inner.places.shape).copy(),
            )
            for part, logits in self._logits(controls, outer, inner):
                labels, share, undecided = self._won(contest, logits)
                undecided |= outer.jumps[part, None] | inner.jumps
                labels *= ~undecided  # what was added up there is no label
                yield Estimate(outer.places[part, None] + inner.places, labels, share, undecided)

    def _blocks(self, cells: Cells) -> Iterator[tuple[Indices, Indices, Indices]]:
        """Some blocks at a time: their cells, their rows and their columns of blocks."""
        first = [np.searchsorted(axis.cell, np.arange(len(axis.control))) for axis in self._axes]
        number = [np.bincount(axis.cell, minlength=len(axis.control)) for axis in self._axes]
        tall, wide = number[0][cells.down], number[1][cells.across]
        cell = np.repeat(np.arange(len(cells.down)), tall * wide)
        inside = np.arange(len(cell)) - np.repeat(np.cumsum(tall * wide) - tall * wide, tall * wide)
        down = first[0][cells.down[cell]] + inside // wide[cell]
        across = first[1][cells.across[cell]] + inside % wide[cell]
        pixels = prod(axis.weights.shape[1] for axis in self._axes)
        step = max(_CHUNK // (len(cells.phrases) * pixels), _LEAST_BLOCKS)
        for start in range(0, len(cell), step):
            part = slice(start, start + step)
            yield cell[part], down[part], across[part]

    def _logits(self, controls: Values, outer: _Part, inner: _Part) -> Iterator[tuple[slice, Values]]:
        """Logits over the temperature, [K, h, w, B], some of the outer pixels (h) at a time."""
        floats = self._scratch.floats
        number, _, phrases, blocks = controls.shape
        partly = floats("partly", number, phrases, inner.pixels, blocks)
        self._sum(
            [
                (control[:, :, None], weight)
                for control, weight in zip(controls.swapaxes(0, 1), inner.weights, strict=True)
            ],
            partly,
        )
        step = max(_CHUNK // (phrases * inner.pixels * blocks), 1)
        for start in range(0, outer.pixels, step):
            weights = outer.weights[:, start : start + step]  # [i, h, B]
            # Repeated for all inner pixels: so much longer is what is multiplied at once.
            repeated = floats("weights", *weights.shape[:2], inner.pixels, blocks)
            repeated[:] = weights[:, :, None]
            logits = floats("logits", phrases, *repeated.shape[1:])
            used = weights.any((1, 2))
            self._sum([(partly[each][:, None], repeated[each]) for each in np.flatnonzero(used)], logits)
            yield slice(start, start + step), logits

    def _sum(self, pairs: Sequence[tuple[Values, Values]], out: Values) -> None:
        """The sum of the products of these values and weights."""
        np.multiply(*pairs[0], out=out)
        product = self._scratch.floats("product", *out.shape)
        for value, weight in pairs[1:]:
            np.multiply(value, weight, out=product)
            out += product

    def _won(self, contest: _Contest, logits: Values) -> tuple[LabelArray, Values, NDArray[np.bool_]]:
        """Of logits [K, h, w, B], which are used up: labels, shares, and where estimates do not decide, [h, w, B] each."""
        for number in np.flatnonzero(contest.fills.any(1)):
            logits[number][..., contest.fills[number]] = -np.inf
        if self._several:
            _merge(logits, contest.owners)
        logits -= logits.max(0)
        near = np.greater_equal(
            logits, -contest.error, out=self._scratch.bytes("near", *logits.shape).view(np.bool_)
        ).view(np.uint8)
        cv2.exp(logits.reshape(-1, logits.shape[3]), dst=logits.reshape(-1, logits.shape[3]))  # a third of numpy's time
        share = logits.sum(0)
        undecided = np.add.reduce(near, 0, np.uint8 if len(near) < 256 else np.uint16) != 1
        undecided |= contest.error > _COARSE
        ids = self._label_ids[contest.owners][:, None, None]
        named = np.multiply(near, ids, out=near) if ids.dtype == near.dtype else near * ids
        labels = np.add.reduce(named, 0, ids.dtype)
        return labels, np.reciprocal(share, out=share), undecided


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    """The phrases of blocks.

    Attributes:
        owners: [K, B], the groups of the phrases, ascending.
        fills: [K, B], whether a phrase only fills up.
        error: [w, B] float32, how far the difference of two estimates may be off, over the temperature.
    """

    owners: Indices
    fills: NDArray[np.bool_]
    error: Values


class _Part:
    """Some blocks of one axis: how many pixels they have at most (n), where these are, and what they are made of.

    Attributes:
        pixels: n.
        weights: [control points, n, B] float32.
        places: [n, B], what the pixels add to the places of pixels of the image; a block that has fewer names its last again.
        jumps: [n, B], see Axis.
    """

    def __init__(self, axis: Axis, blocks: Indices, controls: int, stride: int) -> None:
        pixels = axis.pixels[blocks]
        self.pixels = int(pixels.max())
        self.weights = axis.weights[:controls, : self.pixels].take(blocks, 2)
        self.places = (axis.start[blocks] + np.minimum(np.arange(self.pixels)[:, None], pixels - 1)) * stride
        self.jumps = axis.jumps[: self.pixels].take(blocks, 1)


class _Scratch:
    """Memory that is used again and again: new memory would cost more than what is done in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def floats(self, name: str, *shape: int) -> Values:
        """An array of that shape, whose values are left over from the last use of the name."""
        return self.bytes(name, *shape, 4).reshape(-1).view(np.float32).reshape(shape)

    def bytes(self, name: str, *shape: int) -> NDArray[np.uint8]:
        """The same, of bytes."""
        size = prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size].reshape(shape)


def _merge(logits: Values, owners: Indices) -> None:
    """Leave of phrases [K, h, w, B] of one owner [K, B] only the best, in the place of the last of them."""
    for number in range(1, len(owners)):
        same = owners[number] == owners[number - 1]
        if same.any():
            np.maximum(logits[number], logits[number - 1], out=logits[number], where=same)
            np.copyto(logits[number - 1], -np.inf, where=same)
