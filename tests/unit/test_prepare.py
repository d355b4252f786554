"""What the model is shown of an image: bounded, however elongated the image is."""

from __future__ import annotations

import pytest
from PIL import Image

from tipsseg import prepare
from tipsseg.errors import InputError


@pytest.mark.parametrize("most", [56 * 560 - 1, 56 * 560])
def test_what_is_too_elongated_is_refused(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(prepare, "MAX_WORKING_PIXELS", most)
    image = Image.new("RGB", (100, 10))
    if most == 56 * 560:
        assert prepare.prepare(image, 56, 56, 14).resized.shape == (56, 560, 3)
        return
    message = r"10 x 100 \(height x width\) pixels .* short side of 56 .* 56 x 560 pixels, more than 31,359"
    with pytest.raises(InputError, match=message):
        prepare.prepare(image, 56, 56, 14)
