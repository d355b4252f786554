"""Confidence maps: one 8-bit grey PNG per image, 0..255 for a confidence of 0..1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.png import png_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import ConfidenceArray


class Confidence(Format):
    name = "confidence"
    description = "confidence/<image>.png, 0..255 for 0..1"
    folder = "confidence"
    suffix = ".png"
    needs_confidence = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return the confidence as a PNG file. Ignored pixels keep theirs."""
        from PIL import Image

        assert image.confidence is not None
        return png_bytes(Image.fromarray(quantized(image.confidence)))


def quantized(confidence: ConfidenceArray) -> NDArray[np.uint8]:
    import numpy as np

    levels = np.empty(confidence.shape, np.uint8)
    # Row by row, or so: in one piece it would take twice the memory of the confidence.
    step = max((1 << 20) // confidence.shape[1], 1)
    for top in range(0, len(levels), step):
        piece = confidence[top : top + step].astype(np.float32)
        levels[top : top + step] = np.rint(piece * 255)
    return levels
