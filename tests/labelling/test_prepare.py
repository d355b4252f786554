"""What the model is shown of an image: bounded, however elongated the image is."""

from __future__ import annotations

import pytest
from PIL import Image

from tipsseg.labelling import view as prepare
from tipsseg.labelling.view import make_plan


@pytest.mark.parametrize(
    ("size", "shape", "squeezed"),
    {
        "as published": ((30, 40), (56, 74, 3), False),
        "on its side": ((40, 30), (74, 56, 3), False),
        "a strip": ((3000, 2), (896, 56, 3), True),
        "a strip that is not enlarged": ((56, 1000), (56, 1000, 3), False),
    }.values(),
)
def test_strips_are_squeezed(size: tuple[int, int], shape: tuple[int, ...], squeezed: bool) -> None:
    prepared = prepare.prepare(Image.new("RGB", size[::-1]), make_plan(size, 56, 56, 14))
    assert (prepared.size, prepared.resized.shape, prepared.squeezed) == (size, shape, squeezed)
