"""Bilinear resizing of maps and of parts of them: each value depends on its neighbours alone.

Weights may be of a part of the outputs; what is resized is the part of the source that those need, see `InterpolationWeights.span`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.windows import InterpolationWeights

Values = NDArray[np.float32]


def resize_columns(values: Values, weights: InterpolationWeights) -> Values:
    """[..., h, w] float32 -> [..., h, n], by the n weights of the columns."""
    return _between(values, weights, values.ndim - 1, weights.weight)


def resize_rows(values: Values, weights: InterpolationWeights) -> Values:
    """[..., h, w] float32 -> [..., n, w], by the n weights of the rows."""
    return _between(values, weights, values.ndim - 2, weights.weight[:, None])


def resize(values: Values, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
    """[..., h, w] float32 -> [..., n, m]."""
    # Columns first: there are fewer rows yet, and taking whole rows apart is cheaper than single values.
    return resize_rows(resize_columns(values, columns), rows)


def _between(values: Values, weights: InterpolationWeights, axis: int, weight: Values) -> Values:
    # Elementwise and in this order, so that a value does not depend on what is resized with it.
    steps = np.zeros_like(values)
    ahead = [slice(None)] * axis + [slice(1, None)]
    behind = [slice(None)] * axis + [slice(None, -1)]
    np.subtract(values[*ahead], values[*behind], out=steps[*behind])
    assert values.shape[axis] == weights.span.stop - weights.span.start
    low = weights.low - weights.low[0]
    resized = np.take(steps, low, axis)
    resized *= weight
    resized += np.take(values, low, axis)
    return resized
