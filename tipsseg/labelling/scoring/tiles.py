"""Divide an image into tiles, with the phrases that may win in each or affect its confidence.

Shapes: P phrases, T tiles, H x W an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tipsseg.labelling.scoring.candidates import find_candidates
from tipsseg.labelling.scoring.resample import Ids
from tipsseg.labelling.scoring.scores import Axes, PatchScores, grid_weights

#: Scores per step, phrases x rows x columns: 1 MB, which fits a core's cache.
CHUNK = 1 << 18

#: Side of a tile per `PatchScores.tile_patches`, in pixels of the image and of the resized image, if at most _FEW phrases can win.
#: Tiles
#: with more candidates are divided down to _MIN_SIDE. Smaller tiles have fewer candidates, but every tile has a fixed cost.
_TILE, _WORKING_TILE, _FEW, _MIN_SIDE = 32, 14, 8, 16

#: Tiles times phrases whose candidates are found together. A value is 4 bytes at up to 100 points of a tile.
_AT_ONCE = 1 << 12

#: Rows and columns of a part of an image.
Span = tuple[slice, slice]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of an image.

    Attributes:
        span: Its rows and columns, one of `spans`.
        inner: The rows and columns to label, inside `span`.
    """

    span: Span
    inner: Span


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Part of an image.

    Attributes:
        rows: Rows of the image.
        columns: Columns of the image.
        source: Resizing weights from the score grid, for rows and columns.
        coarse: Resizing weights from the coarse grid, for rows and columns.
        contenders: Phrases of groups that may win or come close.
        others: Phrases of other groups that affect the confidence.
    """

    rows: slice
    columns: slice
    source: Axes
    coarse: Axes
    contenders: Ids
    others: Ids


def batches(tiles: Sequence[_Item], scores: PatchScores) -> Iterator[Sequence[_Item]]:
    """Yield tiles, as many at a time as fit a core's cache with the cosines at their corners."""
    step = max(_AT_ONCE // scores.phrases, 1)
    for start in range(0, len(tiles), step):
        yield tiles[start : start + step]


def tile_array(parts: Sequence[Span]) -> Ids:
    """Return the first and last row, then column, of parts of an image: [T, 4]."""
    return np.array([(rows.start, rows.stop - 1, columns.start, columns.stop - 1) for rows, columns in parts])


def spans(scores: PatchScores, size: tuple[int, int], *, same: bool = False) -> list[Span]:
    """Return the rows and columns of tiles that cover an image of `size` (H, W), row by row.

    `same` means that the resized image has the pixels of the image, of which `size` may be a part.
    """
    pixels, working = scores.tile_patches * _TILE, scores.tile_patches * _WORKING_TILE
    steps = (
        [pixels, pixels]
        if same
        else [
            max(pixels, working * length // whole) if length >= whole else max(pixels * length // whole, 1)
            for length, whole in zip(size, scores.working_size, strict=True)
        ]
    )
    return [
        (slice(top, min(top + steps[0], size[0])), slice(left, min(left + steps[1], size[1])))
        for top in range(0, size[0], steps[0])
        for left in range(0, size[1], steps[1])
    ]


def tiles(
    scores: PatchScores, size: tuple[int, int], owners: Ids, parts: Sequence[Part], needed: int | None
) -> Iterator[Tile]:
    """Yield the tiles of some parts of an image of `size` (H, W). Tiles with many contenders are divided.

    If `needed` is a group, tiles in which it cannot win are left out.
    """
    source, coarse = grid_weights(scores.size, size), grid_weights(scores.coarse_size, size)
    for batch in batches(parts, scores):
        todo = batch
        while todo:
            corners = scores.corners(source, tile_array([part.span for part in todo]))
            candidates = find_candidates(corners, scores.temperature, owners, needed)
            divided: list[Part] = []
            for part, (contenders, others) in zip(todo, candidates, strict=True):
                height, width = (axis.stop - axis.start for axis in part.span)
                few = len(contenders) <= _FEW or len(contenders) * height * width <= CHUNK
                if not len(contenders):
                    continue
                if few or max(height, width) < 2 * _MIN_SIDE:
                    inner = part.inner
                    yield Tile(*inner, _parts(source, inner), _parts(coarse, inner), contenders, others)
                else:
                    divided += _halves(part)
            todo = divided


def _parts(axes: Axes, span: Span) -> Axes:
    rows, columns = (axis.part(part.start, part.stop) for axis, part in zip(axes, span, strict=True))
    return rows, columns


def _halves(part: Part) -> list[Part]:
    """Divide a part along its longer side; halves without pixels to label are left out."""
    rows, columns = part.span
    if rows.stop - rows.start >= columns.stop - columns.start:
        middle = (rows.start + rows.stop) // 2
        halves = [(slice(rows.start, middle), columns), (slice(middle, rows.stop), columns)]
    else:
        middle = (columns.start + columns.stop) // 2
        halves = [(rows, slice(columns.start, middle)), (rows, slice(middle, columns.stop))]
    parts = [Part(half, (_overlap(half[0], part.inner[0]), _overlap(half[1], part.inner[1]))) for half in halves]
    return [each for each in parts if all(axis.start < axis.stop for axis in each.inner)]


def _overlap(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))
