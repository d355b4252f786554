"""Resize maps bilinearly, or parts of them. Every value depends only on its neighbours.

The weights may cover a part of the outputs; then `values` is the part of the source in `InterpolationWeights.span`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.windows import InterpolationWeights

Values = NDArray[np.float32]
Ids = NDArray[np.intp]


def resize_columns(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the columns to n weights: [..., h, w] float32 -> [..., h, n]."""
    # Turned around, because taking whole rows is so much faster than single values that turning pays off.
    return _turn(resize_rows(_turn(values), weights))


def resize_rows(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the rows to n weights: [..., h, w] float32 -> [..., n, w]."""
    axis = values.ndim - 2
    assert values.shape[axis] == weights.span.stop - weights.span.start
    # Compute elementwise and in this order, so that a value does not depend on the other values.
    steps = np.empty_like(values)
    np.subtract(values[..., 1:, :], values[..., :-1, :], out=steps[..., :-1, :])
    steps[..., -1, :] = 0
    low = weights.low - weights.low[0]
    resized = steps.take(low, axis)
    resized *= weights.weight[:, None]
    resized += values.take(low, axis)
    return resized


def resize(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Resize rows and columns: [..., h, w] float32 -> [..., n, m]."""
    # Resize columns first, while there are few rows.
    return resize_rows(resize_columns(values, columns), rows)


def interpolate(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Return values between the points of a grid, [h, w, P] -> [..., P]. The weights have shapes that can be broadcast to [...]."""

    def interpolate_columns(patch_rows: Ids) -> Values:
        low = values[patch_rows, columns.low]
        return (values[patch_rows, columns.high] - low) * columns.weight[..., None] + low

    low = interpolate_columns(rows.low)
    return (interpolate_columns(rows.high) - low) * rows.weight[..., None] + low


def _turn(values: Values) -> Values:
    """Return a copy with the last two axes swapped."""
    return np.ascontiguousarray(values.swapaxes(-1, -2))
