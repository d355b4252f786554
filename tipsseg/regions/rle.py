"""Decode COCO's compressed run-length codes to runs, as numpy arrays.

pycocotools decodes a full picture per code and does not validate the code. Here the work is proportional to the code's length,
and damaged codes raise ValueError.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: [R, 2], start and end of each run as column-major indices of pixels.
Runs = NDArray[np.int64]

_DIGITS_MAX = 6  # of 5 bits each, sign included; enough for any supported picture


def decode_runs(counts: str, size: tuple[int, int]) -> Runs:
    """Decode the runs of a mask of `size` (height, width). Raise ValueError for an invalid code, or one without pixels.

    A number is a series of 5-bit digits, lowest first, each a character starting at "0". Bit 5 marks that more digits follow;
    the highest bit of the last digit is the sign. From the fourth number on, each is a difference to the number two before it.
    The numbers count pixels outside and inside the mask alternately.
    """
    digits = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    if digits.size == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("invalid or missing characters")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _DIGITS_MAX:
        raise ValueError("a number is too large")
    shifts = 5 * (np.arange(digits.size) - np.repeat(first, lengths))
    numbers = np.add.reduceat((digits & 31) << shifts, first)
    numbers -= np.where(digits[last] & 16 != 0, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    height, width = size
    ends = np.cumsum(numbers)
    if numbers.min() < 0 or ends[-1] != height * width:
        raise ValueError(f"its runs do not add up to {height} x {width} pixels")
    runs = np.stack([ends[:-1][::2], ends[1::2]], axis=1)
    runs = runs[runs[:, 1] > runs[:, 0]]
    if not len(runs):
        raise ValueError("it has no pixels")
    return runs


def expand_runs(runs: Runs) -> NDArray[np.bool_]:
    """Expand runs to a mask of the column-major pixels from the first run's start to the last run's end, [L]."""
    steps = np.diff(runs.reshape(-1))
    return np.repeat(np.arange(len(steps)) % 2 == 0, steps)
