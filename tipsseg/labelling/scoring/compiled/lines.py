"""Loop along a row of a tile over `lanes` numbers. They fill whole vectors of the processor, so the last few are padding.

The functions take whole arrays and the index of the row, because slicing would take longer than the loop.
"""

from __future__ import annotations

import numpy as np

from tipsseg.labelling.scoring.compiled.inputs import Axis, Index, Numbers, Span
from tipsseg.labelling.scoring.compiled.maths import ONE, compiled, exp, log
from tipsseg.labelling.scoring.resample import Values

#: float32 numbers per AVX-512 vector, the longest vectors there are.
_LANES = 16


@compiled
def whole_vectors(length: Index) -> Index:
    return (length + _LANES - 1) // _LANES * _LANES


@compiled
def resize(source: Values, k: Index, row: Index, axis: Axis, target: Values, lanes: Index) -> None:
    """Resize a row of a phrase's scores, [K, r, c] -> [K, r, n]."""
    for x in range(lanes):
        low = source[k, row, axis.low[x]]
        target[k, row, x] = low + (source[k, row, axis.high[x]] - low) * axis.weight[x]


@compiled
def resize_patches(cosines: Values, phrase: Index, row: Index, axis: Axis, target: Values, lanes: Index) -> None:
    """Resize a row of patches, [P, h, w] -> [h, n]."""
    for x in range(lanes):
        low = cosines[phrase, row, axis.low[x]]
        target[row, x] = low + (cosines[phrase, row, axis.high[x]] - low) * axis.weight[x]


@compiled
def add_exp(
    cosines: Values,
    upper: Index,
    lower: Index,
    weight: np.float32,
    factors: Values,
    scores: Values,
    k: Index,
    row: Index,
    lanes: Index,
) -> None:
    """Interpolate between two rows of cosines, and add exp(cosine) times a factor to the scores of a phrase."""
    for x in range(lanes):
        cosine = cosines[upper, x] + (cosines[lower, x] - cosines[upper, x]) * weight
        scores[k, row, x] += exp(cosine) * factors[row, x]


@compiled
def interpolate(maps: Values, k: Index, rows: Span, weight: np.float32, lines: Values, lanes: Index) -> None:
    """Interpolate a row of the image between two rows of a phrase."""
    upper, lower = rows
    for x in range(lanes):
        lines[k, 0, x] = maps[k, upper, x] + (maps[k, lower, x] - maps[k, upper, x]) * weight


@compiled
def raise_row(maps: Values, k: Index, other: Index, row: Index, lanes: Index) -> None:
    """Replace a row of a phrase by its elementwise maximum with that of another phrase."""
    for x in range(lanes):
        maps[k, row, x] = max(maps[k, row, x], maps[other, row, x])


@compiled
def raise_to(maps: Values, k: Index, row: Index, values: Values, lanes: Index) -> None:
    """Replace `values` by their elementwise maximum with a row."""
    for x in range(lanes):
        values[x] = max(values[x], maps[k, row, x])


@compiled
def invert(values: Values, inverse: Values, lanes: Index) -> None:
    for x in range(lanes):
        inverse[x] = ONE / values[x]


@compiled
def compare(
    lines: Values, k: Index, owner: np.uint32, best: Values, second: Values, winner: Numbers, lanes: Index
) -> None:
    """Update the best values, the second-best values and the winners with a row. The first of equal values wins."""
    for x in range(lanes):
        value, before = lines[k, 0, x], best[x]
        wins = value > before
        second[x] = before if wins else max(second[x], value)
        best[x] = value if wins else before
        winner[x] = owner if wins else winner[x]


@compiled
def add_share(
    maps: Values, k: Index, row: Index, inverse: Values, temperature: np.float32, total: Values, lanes: Index
) -> None:
    """Add exp((log value - log best) / temperature) to `total`; `inverse` is 1 / best."""
    share = ONE / temperature
    for x in range(lanes):
        total[x] += exp(log(maps[k, row, x] * inverse[x]) * share)
