"""Define the inputs of the compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring.resample import Values

Numbers = NDArray[np.uint32]

#: Index of a row, a column or a phrase. Not uint32, because numba adds a uint32 and an int as floats.
Index = int | np.int64
Span = tuple[Index, Index]


class Axis(NamedTuple):
    """Bilinear resizing weights along one axis, see `windows.InterpolationWeights`.

    Attributes:
        low: [n] uint32.
        high: [n] uint32.
        weight: [n] float32.
    """

    low: Numbers
    high: Numbers
    weight: Values


class Windows(NamedTuple):
    """Windows of an image.

    Attributes:
        by_patch: [W, h, w, P], cosines.
        by_phrase: [W, P, h, w], the same cosines.
        factors: [W, side, side], factors that turn exp(cosine) of a window into its part of the mean over windows.
        corners: [W, 2] int64, (row, column) of the first pixel of each window in the resized image.
        axis: Weights from the patches to the pixels of a window, for both axes.
    """

    by_patch: Values
    by_phrase: Values
    factors: Values
    corners: NDArray[np.int64]
    axis: Axis


class Limits(NamedTuple):
    """Limits for leaving phrases out of a tile.

    Attributes:
        near: A phrase further below the best than this cannot win or come close, see `assign.match`.
        far: A phrase further below the best than this does not affect the confidence.
        rounding: A phrase further below others of its group than this is never the best of the group.
        temperature: Temperature of the softmax for confidences.
        tie: A pixel is unsure if the second score is above this share of the best.
    """

    near: np.float32
    far: np.float32
    rounding: np.float32
    temperature: np.float32
    tie: np.float32
