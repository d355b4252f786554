"""The inputs of the loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring.resample import Values

Numbers = NDArray[np.uint32]

#: A row, a column or a phrase. Not of uint32: numba makes floats of their sums with an int.
Index = int | np.int64
Span = tuple[Index, Index]


class Axis(NamedTuple):
    """Bilinear resizing along one axis, see `windows.InterpolationWeights`.

    Attributes:
        low: [n] uint32.
        high: [n] uint32.
        weight: [n] float32.
    """

    low: Numbers
    high: Numbers
    weight: Values


class Windows(NamedTuple):
    """The windows of an image.

    Attributes:
        by_patch: [W, h, w, P] cosines.
        by_phrase: [W, P, h, w] the same.
        factors: [W, side, side], what makes exp(cosine) of a window its part of the mean over windows.
        corners: [W, 2] int64, row and column of the first pixel of each, in the image as the model sees it.
        axis: From the patches to the pixels of a window, along both axes.
    """

    by_patch: Values
    by_phrase: Values
    factors: Values
    corners: NDArray[np.int64]
    axis: Axis


class Limits(NamedTuple):
    """The limits of what matters in a tile.

    Attributes:
        near: A phrase that stays below the best by more cannot win, and does not come close, see `assign.match`.
        far: A phrase that stays below it by more does not count for the confidence.
        rounding: A phrase that stays below others of its group by more is never the best of the group.
        temperature: Of the confidence.
        tie: A pixel is unsure where the second score is above this share of the best.
    """

    near: np.float32
    far: np.float32
    rounding: np.float32
    temperature: np.float32
    tie: np.float32
