"""What the model is shown of an image: bounded, however elongated the image is."""

from __future__ import annotations

import pytest
from PIL import Image

from tipsseg.errors import InputError
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


@pytest.mark.parametrize("most", [56 * 560 - 1, 56 * 560])
def test_what_is_too_elongated_is_refused(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(prepare, "MAX_WORKING_PIXELS", most)
    image = Image.new("RGB", (100, 10))
    if most == 56 * 560:
        assert prepare.prepare(image, make_plan((image.height, image.width), 56, 56, 14)).resized.shape == (56, 560, 3)
        return
    message = r"10 x 100 \(height x width\) pixels .* short side of 56, it would have 56 x 560 pixels, more than 31,359"
    with pytest.raises(InputError, match=message):
        prepare.prepare(image, make_plan((image.height, image.width), 56, 56, 14))
