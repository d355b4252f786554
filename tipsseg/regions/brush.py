"""Decode Label Studio's run-length code of brush strokes.

It codes the bytes of an RGBA picture. Bits, highest first: 32 for the number of bytes; 5 for the bits of a byte, less one; four
times 4 for the bits of a length, less one. Then parts: one bit whether one byte is repeated, two bits for which of the four
lengths, the length less one, and the byte, or as many bytes as the length says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class _Bits:
    """Bits that are read from the first on."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._bits = np.unpackbits(data)
        self._at = 0

    def number(self, width: int) -> int:
        return int(self.numbers(1, width)[0])

    def numbers(self, count: int, width: int) -> NDArray[np.int64]:
        """Return the numbers in the next bits, [count], each of that width. Raises ValueError if the bits end early."""
        end = self._at + count * width
        if end > len(self._bits):
            raise ValueError("it ends early")
        found = self._bits[self._at : end].reshape(count, width)
        self._at = end
        return found @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def decode_brush(code: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a list of bytes to the painted pixels of an image of `size`: [H, W] bool, where the picture is not transparent.

    Raises ValueError for a list that is not such a code, or is of another size.
    """
    if not isinstance(code, list) or not all(type(number) is int and 0 <= number <= 255 for number in code):
        raise ValueError("its code is no list of bytes")
    bits = _Bits(np.array(code, np.uint8))
    height, width = size
    try:
        total = bits.number(32)
        if total != height * width * 4:
            raise ValueError(f"{total} bytes of colour, where {height} x {width} pixels have {height * width * 4}")
        wide = bits.number(5) + 1
        lengths = [bits.number(4) + 1 for _ in range(4)]
        if wide != 8:
            raise ValueError(f"bytes of {wide} bits")
        return _opaque(bits, total, lengths).reshape(height, width)
    except ValueError as error:
        raise ValueError(f"its code cannot be read: {error}") from error


def _opaque(bits: _Bits, total: int, lengths: list[int]) -> NDArray[np.bool_]:
    """Return which pixels are not transparent, [total / 4]."""
    opaque = np.zeros(total // 4, np.bool_)
    done = 0
    while done < total:
        repeated = bits.number(1)
        end = done + 1 + bits.number(lengths[bits.number(2)])
        if end > total:
            raise ValueError("more bytes than it says")
        # The fourth byte of each pixel is its opacity.
        first, last = done // 4, end // 4
        if repeated:
            if bits.number(8):
                opaque[first:last] = True
        else:
            values = bits.numbers(end - done, 8)
            opaque[first:last] = values[3 - done % 4 :: 4][: last - first] > 0
        done = end
    return opaque
