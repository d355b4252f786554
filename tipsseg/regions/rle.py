"""Decode COCO's compressed run-length codes to runs, as numpy arrays.

pycocotools decodes whole pictures, one a code, and trusts the code. Here the work goes with the code, which may be damaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: [R, 2]: where each run of pixels begins, and where it has ended, counted down the columns.
Runs = NDArray[np.int64]

_DIGITS_MAX = 6  # of 5 bits with the sign; more than any picture here has pixels


def decode_runs(counts: str, size: tuple[int, int]) -> Runs:
    """Decode the runs of a mask of `size` (height, width), one or more. Raises ValueError for text that is not such a code.

    Numbers are written in digits of 5 bits, lowest first, each a character from "0" on; bit 5 says that there are more, the highest
    bit of the last is the sign. From the fourth on they are differences to the last but one. They count, in turn, pixels outside
    and inside.
    """
    digits = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    if digits.size == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("characters that are no code, or none")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _DIGITS_MAX:
        raise ValueError("numbers that are too large")
    places = 5 * (np.arange(digits.size) - np.repeat(first, lengths))
    numbers = np.add.reduceat((digits & 31) << places, first)
    numbers -= np.where(digits[last] & 16 != 0, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    height, width = size
    ends = np.cumsum(numbers)
    if numbers.min() < 0 or ends[-1] != height * width:
        raise ValueError(f"not the runs of {height} x {width} pixels")
    runs = np.stack([ends[:-1][::2], ends[1::2]], axis=1)
    runs = runs[runs[:, 1] > runs[:, 0]]
    if not len(runs):
        raise ValueError("no pixels")
    return runs


def inside(runs: Runs) -> NDArray[np.bool_]:
    """Return which pixels from the first to the last, down the columns, belong to the runs, [L]."""
    steps = np.diff(runs.reshape(-1))
    return np.repeat(np.arange(len(steps)) % 2 == 0, steps)
