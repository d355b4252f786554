"""PNG files of label ids: every reader gets the numbers back, and the files are small."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tipsseg.util import png
from tipsseg.util.png import encode_png

RNG = np.random.default_rng(3)


def read(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("piece", [1, 50, 1 << 20])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (23, 31), (480, 640)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_readers_get_the_numbers_back(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, size: tuple[int, int], piece: int
) -> None:
    monkeypatch.setattr(png, "_PIECE", piece)
    highest = int(np.iinfo(dtype).max)
    noise: NDArray[Any] = RNG.integers(0, highest, size, dtype, endpoint=True)
    for pixels in (noise, np.full(size, highest, dtype), np.asfortranarray(noise), noise[::-1]):
        data = encode_png(pixels)
        picture = read(data)
        assert (picture.format, picture.mode) == ("PNG", "L" if dtype is np.uint8 else "I;16")
        assert (np.asarray(picture) == pixels).all()
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert found.dtype == dtype
        assert (found == pixels).all()


def test_a_palette_is_kept() -> None:
    palette = [int(value) for value in RNG.integers(0, 256, 768)]
    pixels: NDArray[np.uint8] = RNG.integers(0, 256, (20, 30), np.uint8)
    picture = read(encode_png(pixels, palette))
    assert (picture.mode, picture.getpalette()) == ("P", palette)
    assert (np.asarray(picture) == pixels).all()


def test_masks_are_no_larger_than_those_of_an_encoder_for_pictures() -> None:
    y, x = np.mgrid[:480, :640]
    far = [(y - top) ** 2 + (x - left) ** 2 for top, left in RNG.uniform(0, 640, (40, 2))]
    pixels = np.argmin(far, 0).astype(np.uint8)
    usual = io.BytesIO()
    Image.fromarray(pixels).save(usual, format="PNG")
    assert len(encode_png(pixels)) <= len(usual.getvalue())
