"""Approximate exp and log in float32, faster than the exact functions."""

from __future__ import annotations

import numpy as np
from numba import njit

# ln 2 in two parts. The product of the first with a whole number below 2 ** 9 is exact.
_LN2_HIGH = np.float32(np.round(np.log(2) * 2**14) / 2**14)
_LN2_LOW = np.float32(np.log(2) - float(_LN2_HIGH))
_LOG2_E = np.float32(1 / np.log(2))
#: A float32 of this size has no fractional bits, so adding it rounds to a whole number.
_ROUNDER = np.float32(1.5 * 2**23)
_LARGEST = np.float32(87)
#: Number of mantissa bits in a float32, and the bits of sqrt(1/2).
_DIGITS, _ROOT = np.int32(23), np.float32(0.5**0.5).view(np.int32)
#: Coefficients of the power series of exp, 1 / n!, and of 2 artanh, 2 / n.
_E2, _E3, _E4, _E5, _E6 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720))
_A3, _A5, _A7, _A9 = (np.float32(2 / n) for n in (3, 5, 7, 9))
ZERO, ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)

#: Allow fused multiply-add, reciprocals and unsigned zeros; do not raise for divisions by 0; release the GIL.
_QUICK = {"contract", "arcp", "nsz"}
compiled = njit(fastmath=_QUICK, error_model="numpy", nogil=True, cache=True)


@compiled
def _bits(number: np.float32) -> np.int32:
    return np.float32(number).view(np.int32)


@compiled
def _number(bits: np.int32) -> np.float32:
    return np.int32(bits).view(np.float32)


@compiled
def exp(x: np.float32) -> np.float32:
    """Return e ** x with a relative error of at most 2e-7. |x| is limited to 87."""
    shifted = min(max(x, -_LARGEST), _LARGEST) * _LOG2_E + _ROUNDER
    whole = shifted - _ROUNDER
    x = min(max(x, -_LARGEST), _LARGEST) - whole * _LN2_HIGH - whole * _LN2_LOW
    series = ((((_E6 * x + _E5) * x + _E4) * x + _E3) * x + _E2) * x * x + x + ONE
    return _number(_bits(series) + (_bits(shifted) << _DIGITS))


@compiled
def log(x: np.float32) -> np.float32:
    """Return ln x for x > 0, with an error of at most 2e-7, or a relative error of at most 1e-7."""
    bits = _bits(x)
    exponent = (bits - _ROOT) >> _DIGITS
    mantissa = _number(bits - (exponent << _DIGITS))  # in [sqrt(1/2), sqrt(2))
    t = (mantissa - ONE) / (mantissa + ONE)
    square = t * t
    whole = np.float32(exponent)
    return (
        ((((_A9 * square + _A7) * square + _A5) * square + _A3) * square + _TWO) * t
        + whole * _LN2_LOW
        + whole * _LN2_HIGH
    )
