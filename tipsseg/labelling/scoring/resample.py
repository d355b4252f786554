"""Resize maps bilinearly, or parts of them. Every value depends only on its neighbours.

The weights may cover a part of the outputs; then `values` is the part of the source in `InterpolationWeights.span`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.windows import InterpolationWeights

Values = NDArray[np.float32]


def resize_columns(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the columns to n weights: [..., h, w] float32 -> [..., h, n]."""
    return _interpolate(values, weights, values.ndim - 1, weights.weight)


def resize_rows(values: Values, weights: InterpolationWeights) -> Values:
    """Resize the rows to n weights: [..., h, w] float32 -> [..., n, w]."""
    return _interpolate(values, weights, values.ndim - 2, weights.weight[:, None])


def resize(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """Resize rows and columns: [..., h, w] float32 -> [..., n, m]."""
    # Resize columns first, while there are few rows: copying whole rows is cheaper than copying single values.
    return resize_rows(resize_columns(values, columns), rows)


def _interpolate(values: Values, weights: InterpolationWeights, axis: int, weight: Values) -> Values:
    # Compute elementwise and in this order, so that a value does not depend on the other values.
    steps = np.zeros_like(values)
    following = [slice(None)] * axis + [slice(1, None)]
    preceding = [slice(None)] * axis + [slice(None, -1)]
    np.subtract(values[*following], values[*preceding], out=steps[*preceding])
    assert values.shape[axis] == weights.span.stop - weights.span.start
    low = weights.low - weights.low[0]
    resized = np.take(steps, low, axis)
    resized *= weight
    resized += np.take(values, low, axis)
    return resized
