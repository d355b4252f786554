"""Label a picture larger than memory, block by block, with the windows of the whole picture.

Every pixel sees the windows that cover it in the whole picture, so its label is the same as if the picture were labelled at once.
A window is encoded once, except after an interruption: its cosines are kept while a block that it covers is to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.label_map import LabelMap
from tipsseg.labelling.labeller import Cosines, Labeller
from tipsseg.labelling.view import window_side, window_starts
from tipsseg.types import WindowPlan

#: Side of a block in pixels: a multiple of the tiles in which labels are computed and stored.
BLOCK = 2048

#: Windows of a row that are encoded together, always the same ones: rounding may depend on their number.
_TOGETHER = 8

#: Function that reads a part of the picture: top, left, height, width -> [h, w, 3] uint8.
Read = Callable[[int, int, int, int], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """The place of a block: its number, from top to bottom, then from left to right, and its pixels."""

    number: int
    top: int
    left: int
    height: int
    width: int


def block_places(size: tuple[int, int]) -> Iterator[BlockPlace]:
    """Yield the places of the blocks of a picture of `size` (height, width)."""
    number = 0
    for top in range(0, size[0], BLOCK):
        for left in range(0, size[1], BLOCK):
            yield BlockPlace(number, top, left, min(BLOCK, size[0] - top), min(BLOCK, size[1] - left))
            number += 1


class BlockLabeller:
    """Label the blocks of a picture, in any order; ascending order is fastest."""

    def __init__(self, labeller: Labeller, size: tuple[int, int], read: Read) -> None:
        """Set up for a picture of `size` (height, width) that `read` reads. `labeller` has windows and one scale."""
        self._labeller = labeller
        self._read = read
        self._size = size
        view = labeller.view
        self._side = window_side(view.native_size, min(view.native_size, *size), view.patch_size)
        self._tops, self._lefts = (window_starts(length, self._side) for length in size)
        self._known: dict[tuple[int, int], Any] = {}  # the cosines of windows encoded together, by row and group

    def label(self, place: BlockPlace) -> LabelMap:
        """Label a block. Raise DeviceError if the device has too little memory, and ImageError if the picture cannot be read."""
        rows = _covering(self._tops, self._side, place.top, place.height)
        columns = _covering(self._lefts, self._side, place.left, place.width)
        groups = range(columns[0] // _TOGETHER, columns[-1] // _TOGETHER + 1)
        values = []
        for row in rows:
            row_values = {}
            for group in groups:
                for index, cosines in enumerate(self._cosines(row, group)):
                    row_values[group * _TOGETHER + index] = cosines
            values += [row_values[column] for column in columns]
        top, left = self._tops[rows[0]], self._lefts[columns[0]]
        height = self._tops[rows[-1]] + self._side - top
        width = self._lefts[columns[-1]] + self._side - left
        corners = tuple((self._tops[row] - top, self._lefts[column] - left) for row in rows for column in columns)
        plan = WindowPlan((height, width), self._side, corners)
        inner = (place.top - top, place.left - left, place.height, place.width)
        self._forget(place, rows, groups)
        return self._labeller.assign(Cosines(_stack(values), (plan,), (height, width)), inner=inner)

    def _cosines(self, row: int, group: int) -> Any:
        """Return the cosines of the windows of a group, each [h, w, P]."""
        if (row, group) not in self._known:
            lefts = self._lefts[group * _TOGETHER : (group + 1) * _TOGETHER]
            pixels = self._read(self._tops[row], lefts[0], self._side, lefts[-1] + self._side - lefts[0])
            windows = [pixels[:, left - lefts[0] : left - lefts[0] + self._side] for left in lefts]
            self._known[row, group] = self._labeller.score_windows([np.ascontiguousarray(each) for each in windows])
        return self._known[row, group]

    def _forget(self, place: BlockPlace, rows: range, groups: range) -> None:
        """Drop cosines that neither the next block to the right nor the blocks below need."""
        below = {row for row in rows if self._tops[row] + self._side > place.top + place.height}
        last_column = place.left + place.width >= self._size[1]
        for row, group in list(self._known):
            if row in below or row > rows[-1]:
                continue
            if last_column or row < rows[0] or group < groups[-1]:
                del self._known[row, group]


def _covering(starts: tuple[int, ...], side: int, first: int, length: int) -> range:
    """Return the windows along one axis that cover any of `length` pixels from `first`."""
    found = [index for index, start in enumerate(starts) if start < first + length and start + side > first]
    return range(found[0], found[-1] + 1)


def _stack(values: list[Any]) -> list[Any]:
    if isinstance(values[0], np.ndarray):
        return [np.stack(values)]
    import torch

    return [torch.stack(values)]
