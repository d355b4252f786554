"""Find the phrases that may win in a tile or affect its confidence. README.md proves that the others cannot win.

Shapes: T tiles, N points of each, P phrases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tipsseg.labelling.scoring.resample import Ids, Values

#: Rounding may swap two cosines closer than this: ten times the possible error of float32 sums of this size.
ROUNDING = 1e-5

#: Distances of a cosine from the best, in temperatures. From CLOSE on, its share of the confidence is computed on the coarse
#: grid (it is at most 0.14 of the best). From NEGLIGIBLE on, it is left out (less than 5e-5).
CLOSE, NEGLIGIBLE = 2.0, 10.0

#: Maximum number of leading phrases in a bound.
_LEADERS = 4


def find_candidates(
    corners: Sequence[Values], temperature: float, owners: Ids, needed: int | None
) -> list[tuple[Ids, Ids]]:
    """Find the phrases of groups that may win or come close in each tile, and the other phrases that affect its confidence.

    Args:
        corners: [T, N, P] per scale, see `Scores.corners`.
        temperature: Temperature of the softmax for confidences.
        owners: [P], the group of each phrase, in ascending order.
        needed: A group. Tiles in which it cannot win have no candidates.
    """
    margins = _margins(corners)  # [T, P]
    contends = margins <= max(ROUNDING, CLOSE * temperature)
    firsts, sizes = first_of_groups(owners), np.bincount(owners)
    groups = np.logical_or.reduceat(contends, firsts, 1)  # [T, G]
    contends = groups[:, owners]
    others = ~contends & (margins <= NEGLIGIBLE * temperature)
    for group in np.flatnonzero(groups.any(0) & (sizes > 1)):
        tiles, own = np.flatnonzero(groups[:, group]), slice(firsts[group], firsts[group] + sizes[group])
        # Keep only phrases that may be the best of their group somewhere, by the same bound with leaders from the group.
        contends[tiles, own] = _margins([values[tiles, :, own] for values in corners]) <= ROUNDING
    if needed is not None:
        lost = margins[:, owners == needed].min(1) > ROUNDING
        contends[lost] = others[lost] = False
    return [(np.flatnonzero(near), np.flatnonzero(far)) for near, far in zip(contends, others, strict=True)]


def first_of_groups(owners: Ids) -> Ids:
    """Return the index of the first phrase of each group, from the groups of the phrases in ascending order."""
    return np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))


def _margins(corners: Sequence[Values]) -> Values:
    """Return a lower bound on the distance of each phrase from a mean of leading phrases, [T, N, P] per scale -> [T, P]."""
    return distances(lead(corners), corners)


def distances(bounds: Sequence[Values], corners: Sequence[Values]) -> Values:
    """Return the smallest distance of each phrase from a bound, [T, N] and [T, N, P] per scale -> [T, P], as a mean over scales."""
    least = [(bound[:, :, None] - values).min(1) for bound, values in zip(bounds, corners, strict=True)]
    margins: Values = np.mean(least, axis=0, dtype=np.float32)
    return margins


def lead(corners: Sequence[Values]) -> list[Values]:
    """Return a mean of leading phrases at each point, [T, N, P] per scale -> [T, N] per scale.

    If different phrases lead at different points, the mean takes more leaders, so that it is high at all points. It does not
    depend on points that are repeated.
    """
    values = np.concatenate(corners, 1)  # [T, N', P]
    tiles = np.arange(len(values))
    bounds = values[tiles, :, values.min(1).argmax(1)]  # [T, N']
    better = np.ones(len(values), bool)
    for number in range(2, _LEADERS + 1):
        worst = bounds.argmin(1)
        leaders = values[tiles, worst].argmax(1)
        wider = bounds + (values[tiles, :, leaders] - bounds) / np.float32(number)
        better &= wider.min(1) > bounds[tiles, worst]  # a tile must not depend on the others
        if not better.any():
            break
        bounds = np.where(better[:, None], wider, bounds)
    return np.split(bounds, np.cumsum([scale.shape[1] for scale in corners])[:-1], 1)
