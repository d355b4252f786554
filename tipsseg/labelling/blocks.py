"""Label a picture in blocks: each pixel sees the windows that cover it in the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from tipsseg.formats.blocks import Picture
from tipsseg.label_map import LabelMap
from tipsseg.labelling.labeller import Cosines, Labeller
from tipsseg.labelling.view import window_side, window_starts
from tipsseg.types import BlockPlace, WindowPlan

#: Windows of a row that are encoded together, always the same ones: rounding may depend on their number.
_TOGETHER = 8


class BlockLabeller:
    """Label the blocks of a picture, in any order; ascending order is fastest.

    Attributes:
        fade: See `WindowPlan`. Half a patch, so that labels change about as seldom at borders of windows as elsewhere: wider fades
            give worse labels, as fewer pixels are seen in several windows.
    """

    def __init__(self, labeller: Labeller, picture: Picture) -> None:
        """Set up for a picture. `labeller` has windows and one scale."""
        self._labeller = labeller
        self._picture = picture
        size = picture.size
        view = labeller.view
        self.fade = view.patch_size // 2
        self._side = window_side(view.native_size, min(view.native_size, *size), view.patch_size)
        self._tops, self._lefts = (window_starts(length, self._side) for length in size)
        # By row and group of windows that are encoded together (see `Labeller.score_windows`).
        self._known: dict[tuple[int, int], Any] = {}

    def label(self, place: BlockPlace) -> LabelMap:
        """Label a block. Raise DeviceError if the device has too little memory, and ImageError if the picture cannot be read."""
        rows = _covering(self._tops, self._side, place.top, place.height)
        columns = _covering(self._lefts, self._side, place.left, place.width)
        groups = range(columns[0] // _TOGETHER, columns[-1] // _TOGETHER + 1)
        values, norms = [], []
        for row in rows:
            row_values = {}
            for group in groups:
                scored, arriving = self._score(row, group)
                norms += arriving
                for index, cosines in enumerate(scored):
                    row_values[group * _TOGETHER + index] = cosines
            values += [row_values[column] for column in columns]
        top, left = self._tops[rows[0]], self._lefts[columns[0]]
        height = self._tops[rows[-1]] + self._side - top
        width = self._lefts[columns[-1]] + self._side - left
        corners = tuple((self._tops[row] - top, self._lefts[column] - left) for row in rows for column in columns)
        plan = WindowPlan((height, width), self._side, corners, self.fade)
        inner = (place.top - top, place.left - left, place.height, place.width)
        self._forget(place, rows, groups)
        return self._labeller.assign(Cosines(_stack(values), norms, (plan,), (height, width)), inner=inner)

    def _score(self, row: int, group: int) -> Any:
        """Return the cosines of the windows of a group, each [h, w, P], and the lengths of their features."""
        if (row, group) not in self._known:
            lefts = self._lefts[group * _TOGETHER : (group + 1) * _TOGETHER]
            pixels = self._picture.read(self._tops[row], lefts[0], self._side, lefts[-1] + self._side - lefts[0])
            windows = [pixels[:, left - lefts[0] : left - lefts[0] + self._side] for left in lefts]
            self._known[row, group] = self._labeller.score_windows([np.ascontiguousarray(each) for each in windows])
        return self._known[row, group]

    def _forget(self, place: BlockPlace, rows: range, groups: range) -> None:
        """Drop cosines that neither the next block to the right nor the blocks below need."""
        below = {row for row in rows if self._tops[row] + self._side > place.top + place.height}
        last_column = place.left + place.width >= self._picture.size[1]
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
