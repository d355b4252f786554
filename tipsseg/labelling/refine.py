"""Refine soft label maps along the edges of the image with PAMR, which needs no training.

Cosines are on a grid of patches, so the edges of labels are off by up to a patch. Pixel-adaptive mask refinement (Araslanov and
Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 4) repeatedly replaces every pixel by a weighted
mean of its neighbours, with the largest weights for similar colours.

Shapes: K maps, h x w pixels, N neighbours (eight at each dilation).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import to_device

#: Distances of the neighbours in pixels, and the number of iterations, as published. Each distance adds eight neighbours, at the
#: corners and edge midpoints of a square.
_DILATIONS: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
_ITERATIONS = 10

#: Scale of colour differences, in standard deviations of the neighbourhood, as published.
_SPREAD = 0.1

#: Pixels per tile. With 48 neighbours, a pixel takes 192 bytes of weights and about 70 of temporary values.
_TILE_PIXELS = 800_000

#: Maps per batch.
_CHUNK = 4

_RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@torch.inference_mode()
def pamr(maps: Tensor, image: NDArray[np.uint8]) -> Tensor:
    """Refine soft label maps according to the colours of the image.

    This takes at most about 250 MB in addition to the result, for any h, w and K.

    Args:
        maps: [K, h, w] float32, on any device.
        image: [h, w, 3] uint8 RGB.

    Returns:
        [K, h, w] float32 on the device of `maps`. Every value is a weighted mean of its own map, with weights that depend only on
        the image. So maps stay within [0, 1], their sum at every pixel stays 1, and maps are independent of one another. A pixel
        depends only on pixels within the product of the largest distance and the iterations.
    """
    size = (image.shape[0], image.shape[1])
    refined = torch.empty_like(maps)
    for tile in _tiles(size, max(_DILATIONS) * _ITERATIONS):
        _refine_tile(maps, image, refined, tile)
    return refined


#: Rows and columns of a tile: of the result, with its margins, and of the result relative to the latter.
_Tile = tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]


def _tiles(size: tuple[int, int], margin: int) -> Iterator[_Tile]:
    """Yield tiles whose cores cover the image, each of about _TILE_PIXELS with its margins."""
    short = min(size)
    # Tiles that span the short side need margins on only two sides. Use them unless they would be mostly margin.
    side = short if _TILE_PIXELS // short >= 3 * margin else isqrt(_TILE_PIXELS)
    extents = (side, _TILE_PIXELS // side) if size[0] <= size[1] else (_TILE_PIXELS // side, side)
    spans = [list(_spans(length, extent, margin)) for length, extent in zip(size, extents, strict=True)]
    for rows in spans[0]:
        for columns in spans[1]:
            core, outer, inner = zip(rows, columns, strict=True)
            yield core, outer, inner


def _spans(length: int, extent: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield (core, outer, inner) slices along an axis. `outer` is at most `extent` long, if `extent` exceeds the margins."""
    step = length if extent >= length else max(extent - 2 * margin, 1)
    for start in range(0, length, step):
        stop = min(start + step, length)
        first, last = max(start - margin, 0), min(stop + margin, length)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)


def _refine_tile(maps: Tensor, image: NDArray[np.uint8], refined: Tensor, tile: _Tile) -> None:
    # A separate function frees the weights of a tile before the next tile's are allocated.
    core, outer, inner = tile
    pixels = to_device(np.require(image[outer], requirements=["C", "W"]), maps.device)
    weights = _affinity(pixels.permute(2, 0, 1).float())
    for start in range(0, len(maps), _CHUNK):
        chunk = maps[start : start + _CHUNK, *outer]
        for _ in range(_ITERATIONS):
            chunk = _average_neighbours(chunk, weights)
        refined[start : start + _CHUNK, *core] = chunk[:, *inner]


def _affinity(image: Tensor) -> Tensor:
    """Return the neighbour weights of each pixel, [N, h, w]: softmax(mean over channels of -|difference| / (0.1 * sigma)).

    `image` is [3, h, w] float32. sigma is the standard deviation of a channel over the neighbours.
    """
    neighbours = 8 * len(_DILATIONS)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for values in _neighbours(image):
        # Sum differences instead of values: both sums are whole numbers, exact in float32, and a uniform area has sigma 0.
        difference = values - image
        total += difference
        squares.addcmul_(difference, difference)
    sigma = squares.sub_(total.square_().div_(neighbours)).clamp_(min=0).div_(neighbours - 1).sqrt_()
    # If sigma is 0, all neighbours are equal in that channel, which then has no effect.
    scale = torch.where(sigma > 0, -1 / (len(image) * _SPREAD * sigma), 0.0)
    weights = image.new_empty(neighbours, *image.shape[1:])
    for weight, values in zip(weights, _neighbours(image), strict=True):
        torch.sum((values - image).abs_().mul_(scale), 0, out=weight)
    weights.sub_(weights.amax(0)).exp_()
    return weights.div_(weights.sum(0))


def _average_neighbours(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the neighbours of every pixel: [c, h, w] -> [c, h, w]."""
    mean = torch.zeros_like(maps)
    for weight, values in zip(weights, _neighbours(maps), strict=True):
        mean.addcmul_(values, weight)
    return mean


def _neighbours(maps: Tensor) -> Iterator[Tensor]:
    """Yield N shifted copies of the maps, each [c, h, w], one per neighbour. Edge pixels are repeated outwards."""
    height, width = maps.shape[1:]
    margin = max(_DILATIONS)
    padded = F.pad(maps, (margin, margin, margin, margin), mode="replicate")
    for dilation in _DILATIONS:
        for down, right in _RING:
            top, left = margin + dilation * down, margin + dilation * right
            yield padded[:, top : top + height, left : left + width]
