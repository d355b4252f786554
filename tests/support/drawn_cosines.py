"""Cosines of images with phrases, drawn at random."""

from __future__ import annotations

import numpy as np

from tipsseg.labelling.sums import Values
from tipsseg.labelling.view import make_plan
from tipsseg.types import WindowPlan


def random_windows(size: tuple[int, int], phrases: int, spread: float = 1) -> tuple[Values, WindowPlan]:
    """Cosines [windows, 4, 4, P]: nothing that a patch says is said by the next."""
    plan = make_plan(size, 56, 56, 14)
    shape = (len(plan.corners), 4, 4, phrases)
    return (np.random.default_rng(5).random(shape, np.float32) * 2 - 1) * np.float32(spread), plan


def objects(size: tuple[int, int], phrases: int, seed: int) -> tuple[Values, WindowPlan]:
    """Cosines [windows, 8, 8, P] of a picture of objects with straight edges: most phrases are far behind nearly everywhere."""
    plan = make_plan(size, 112, 112, 14)
    rng = np.random.default_rng(seed)
    places, shown = rng.random((6, 2)) * plan.size, rng.integers(0, phrases, 6)
    windows = []
    for top, left in plan.corners:
        y, x = np.mgrid[top + 7 : top + 112 : 14, left + 7 : left + 112 : 14]
        nearest = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1]).argmin(2)  # [8, 8]
        own = np.eye(phrases, dtype=np.float32)[shown[nearest]]  # [8, 8, P]
        windows.append(own * 0.2 + rng.normal(0.05, 0.02, own.shape).astype(np.float32))
    return np.stack(windows), plan
