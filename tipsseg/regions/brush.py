"""Decode Label Studio's run-length code (RLE) of brush strokes.

It encodes the bytes of an RGBA picture as bits, highest first. Header: the number of bytes (32 bits); the width of a byte minus
one (5 bits); the widths of four length fields, each minus one (4 bits each). Then parts: a flag for a repeated byte (1 bit),
the index of the length field (2 bits), the length minus one, and either the repeated byte or `length` bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class _Bits:
    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._bits = np.unpackbits(data)
        self._position = 0

    def number(self, width: int) -> int:
        return int(self.numbers(1, width)[0])

    def numbers(self, count: int, width: int) -> NDArray[np.int64]:
        """Read `count` numbers of `width` bits each, [count]. Raise ValueError at the end of the bits."""
        end = self._position + count * width
        if end > len(self._bits):
            raise ValueError("unexpected end")
        digits = self._bits[self._position : end].reshape(count, width)
        self._position = end
        return digits @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def decode_brush(code: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a list of bytes to a mask of the painted (not transparent) pixels, [H, W] bool.

    Raise ValueError if the code is invalid, or its image is not of `size` (H, W).
    """
    if not isinstance(code, list) or not all(type(number) is int and 0 <= number <= 255 for number in code):
        raise ValueError("its RLE is not a list of bytes")
    bits = _Bits(np.array(code, np.uint8))
    height, width = size
    try:
        total = bits.number(32)
        if total != height * width * 4:
            raise ValueError(f"it has {total} bytes, but {height} x {width} RGBA pixels have {height * width * 4}")
        byte_width = bits.number(5) + 1
        lengths = [bits.number(4) + 1 for _ in range(4)]
        if byte_width != 8:
            raise ValueError(f"its bytes have {byte_width} bits")
        return _opaque(bits, total, lengths).reshape(height, width)
    except ValueError as error:
        raise ValueError(f"its RLE cannot be read: {error}") from error


def _opaque(bits: _Bits, total: int, lengths: list[int]) -> NDArray[np.bool_]:
    """Decode the parts to a mask of the pixels that are not transparent, [total / 4]."""
    opaque = np.zeros(total // 4, np.bool_)
    done = 0
    while done < total:
        repeated = bits.number(1)
        end = done + 1 + bits.number(lengths[bits.number(2)])
        if end > total:
            raise ValueError("it has more bytes than its header declares")
        # The fourth byte of a pixel is its alpha.
        first, last = done // 4, end // 4
        if repeated:
            if bits.number(8):
                opaque[first:last] = True
        else:
            values = bits.numbers(end - done, 8)
            opaque[first:last] = values[3 - done % 4 :: 4][: last - first] > 0
        done = end
    return opaque
