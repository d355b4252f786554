"""Draw soft label maps to the edges of the image: PAMR. Optional, and nothing in it is trained.

Cosines come on a grid of patches, so the edges of labels are off by up to a patch. Pixel-adaptive mask refinement (Araslanov and
Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 4) lets every pixel take over, again and again, the
mean of its neighbours, those of a similar colour weighing most.

Shapes: K maps, h x w pixels, N neighbours (eight at each dilation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.transfers import to_device

#: Distances of the neighbours in pixels, and how often a pixel takes over from them, as published.
DILATIONS: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10

#: How far colours may differ, in standard deviations of the neighbourhood; as published.
_SPREAD = 0.1

#: Pixels that are refined at once. With 48 neighbours a pixel takes 192 bytes of weights, and some 70 of other things in passing.
_TILE_PIXELS = 800_000

#: Maps that are refined at once.
_CHUNK = 4

_RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@torch.inference_mode()
def pamr(
    maps: Tensor, image: NDArray[np.uint8], dilations: Sequence[int] = DILATIONS, iterations: int = ITERATIONS
) -> Tensor:
    """Refine soft label maps by the colours of the image.

    Memory: beside the result about 250 MB at most, whatever h, w and K are, for the published parameters.

    Args:
        maps: [K, h, w] float32, on any device.
        image: [h, w, 3] uint8 RGB.
        dilations: Distances of the neighbours in pixels; each adds eight, at the corners and the middles of the sides of a square.
        iterations: How often each pixel becomes the weighted mean of its neighbours.

    Returns:
        [K, h, w] float32 on the device of `maps`. Every value is a weighted mean of values of its own map, with weights that the
        image alone decides: maps in [0, 1] stay there, maps that sum to 1 at every pixel still do, and no map depends on which
        others are refined with it. Nothing farther than `reach(dilations, iterations)` pixels matters to a pixel.
    """
    size = (image.shape[0], image.shape[1])
    refined = torch.empty_like(maps)
    for tile in _tiles(size, reach(dilations, iterations)):
        _refine_tile(maps, image, refined, tile, dilations, iterations)
    return refined


def reach(dilations: Sequence[int] = DILATIONS, iterations: int = ITERATIONS) -> int:
    """Return how far in pixels, along each axis, a pixel can matter to the refined value of another."""
    return max(dilations) * iterations


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows and columns of the image: `core` is wanted, `outer` is what that depends on, `inner` is the core within the outer."""

    core: tuple[slice, slice]
    outer: tuple[slice, slice]
    inner: tuple[slice, slice]


def _tiles(size: tuple[int, int], margin: int) -> Iterator[_Tile]:
    """Yield tiles whose cores are the image, with outer parts of about _TILE_PIXELS."""
    short = min(size)
    # Pieces of the whole short side are refined with margins on two sides only, as long as they are not mostly margin.
    side = short if _TILE_PIXELS // short >= 3 * margin else isqrt(_TILE_PIXELS)
    extents = (side, _TILE_PIXELS // side) if size[0] <= size[1] else (_TILE_PIXELS // side, side)
    spans = [list(_spans(length, extent, margin)) for length, extent in zip(size, extents, strict=True)]
    for rows in spans[0]:
        for columns in spans[1]:
            yield _Tile(*zip(rows, columns, strict=True))


def _spans(length: int, extent: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield (core, outer, inner) of pieces of one axis, the outer ones at most `extent` long if the margins leave anything."""
    step = length if extent >= length else max(extent - 2 * margin, 1)
    for start in range(0, length, step):
        stop = min(start + step, length)
        first, last = max(start - margin, 0), min(stop + margin, length)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)


def _refine_tile(
    maps: Tensor, image: NDArray[np.uint8], refined: Tensor, tile: _Tile, dilations: Sequence[int], iterations: int
) -> None:
    # A function of its own so that the weights of one tile are gone before those of the next are made.
    pixels = to_device(np.require(image[tile.outer], requirements=["C", "W"]), maps.device)
    weights = _affinity(pixels.permute(2, 0, 1).float(), dilations)
    for start in range(0, len(maps), _CHUNK):
        chunk = maps[start : start + _CHUNK, *tile.outer]
        for _ in range(iterations):
            chunk = _take_over(chunk, weights, dilations)
        refined[start : start + _CHUNK, *tile.core] = chunk[:, *tile.inner]


def _affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Weigh the neighbours of each pixel, [N, h, w], of sum 1: softmax(mean over channels of -|difference| / (0.1 * sigma)).

    `image` is [3, h, w] float32; sigma is the standard deviation of a channel over the neighbours.
    """
    neighbours = 8 * len(dilations)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for values in _neighbours(image, dilations):
        # Differences instead of values: both sums are whole numbers that float32 holds exactly, and a plain surface has sigma 0.
        difference = values - image
        total += difference
        squares.addcmul_(difference, difference)
    sigma = squares.sub_(total.square_().div_(neighbours)).clamp_(min=0).div_(neighbours - 1).sqrt_()
    # Where sigma is 0 all neighbours are alike in that channel, which then has no say.
    scale = torch.where(sigma > 0, -1 / (len(image) * _SPREAD * sigma), 0.0)
    weights = image.new_empty(neighbours, *image.shape[1:])
    for weight, values in zip(weights, _neighbours(image, dilations), strict=True):
        torch.sum((values - image).abs_().mul_(scale), 0, out=weight)
    weights.sub_(weights.amax(0)).exp_()
    return weights.div_(weights.sum(0))


def _take_over(maps: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    """Do one iteration: [c, h, w] -> [c, h, w]."""
    mean = torch.zeros_like(maps)
    for weight, values in zip(weights, _neighbours(maps, dilations), strict=True):
        mean.addcmul_(values, weight)
    return mean


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Yield the N neighbours of every pixel, [c, h, w] each; beyond the edges the outermost pixels go on."""
    height, width = maps.shape[1:]
    margin = max(dilations)
    padded = F.pad(maps, (margin, margin, margin, margin), mode="replicate")
    for dilation in dilations:
        for down, right in _RING:
            top, left = margin + dilation * down, margin + dilation * right
            yield padded[:, top : top + height, left : left + width]
