"""Confidence maps: one 8-bit greyscale PNG per image, in which 0..255 encodes a confidence of 0..1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.png import encode_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import ConfidenceArray


class Confidence(Format):
    name = "confidence"
    description = "confidence images: confidence/<image>.png, with 0..1 scaled to 0..255"
    folder = "confidence"
    suffix = ".png"
    needs_confidence = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        assert image.confidence is not None
        return encode_picture(Image.fromarray(quantize(image.confidence)))


def quantize(confidence: ConfidenceArray) -> NDArray[np.uint8]:
    """Return round(255 * confidence), [H, W] uint8, also for ignored pixels."""
    import numpy as np

    levels = np.empty(confidence.shape, np.uint8)
    # Convert blocks of rows: converting everything at once would take twice the memory of the confidence.
    step = max((1 << 20) // confidence.shape[1], 1)
    for top in range(0, len(levels), step):
        block = confidence[top : top + step].astype(np.float32)
        levels[top : top + step] = np.rint(block * 255)
    return levels
