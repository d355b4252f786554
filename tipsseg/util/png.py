"""Label ids to PNG files: one number for each pixel, few of them, and long runs of each."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from struct import pack

import numpy as np
from numpy.typing import NDArray

#: Bytes of pixels that are looked at at once.
_PIECE = 1 << 20

_GREY, _PALETTE = 0, 3

#: The filter "up" of a row: what is stored is the difference from the row above.
_UP = 2


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16], palette: Sequence[int] | None = None) -> bytes:
    """Encode numbers as a PNG file without loss.

    Rows of labels are mostly those above them, so their differences are zeros, and run lengths are all that is left to be found.
    For masks that takes a third of the time of an encoder for pictures of all kinds, and the files are a little smaller.

    Args:
        pixels: [H, W] uint8 or uint16, not empty.
        palette: Red, green and blue of each of the numbers from 0 on, 0..255; only for uint8. None: the numbers are grey values.

    Returns:
        The file.
    """
    height, width = pixels.shape
    header = pack(">IIBBBBB", width, height, 8 * pixels.itemsize, _GREY if palette is None else _PALETTE, 0, 0, 0)
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    packed = [compressor.compress(rows.data) for rows in _filtered(pixels)]
    chunks = [
        _chunk(b"IHDR", header),
        *([] if palette is None else [_chunk(b"PLTE", bytes(palette))]),
        _chunk(b"IDAT", b"".join([*packed, compressor.flush()])),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _filtered(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Iterator[NDArray[np.uint8]]:
    """The bytes of the rows, high bytes first, each row filtered and behind the number of its filter."""
    height, width = pixels.shape
    row_bytes = width * pixels.itemsize
    step = max(_PIECE // row_bytes, 1)
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, height, step):
        piece = pixels[top : top + step].astype(pixels.dtype.newbyteorder(">"), order="C", copy=False)
        rows = piece.view(np.uint8).reshape(len(piece), row_bytes)
        filtered = np.empty((len(rows), 1 + row_bytes), np.uint8)
        filtered[:, 0] = _UP
        np.subtract(rows[:1], above, out=filtered[:1, 1:])
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        above = rows[-1:]
        yield filtered


def _chunk(kind: bytes, content: bytes) -> bytes:
    return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(content, zlib.crc32(kind)))
