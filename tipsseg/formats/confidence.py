"""Confidence maps: one 8-bit grey PNG an image, 0..255 for a confidence of 0..1."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats import RunContext
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.types import ConfidenceArray, LabelMap


def quantized(confidence: ConfidenceArray) -> NDArray[np.uint8]:
    """round(255 * confidence), as 8 bits."""
    levels = np.empty(confidence.shape, np.uint8)
    # Row by row, or so: in one piece it would take twice the memory of the confidence.
    step = max((1 << 20) // confidence.shape[1], 1)
    for top in range(0, len(levels), step):
        piece = confidence[top : top + step].astype(np.float32)
        levels[top : top + step] = np.rint(piece * 255)
    return levels


def encode(label_map: LabelMap) -> bytes:
    """The confidence as a PNG file, 8-bit grey, see `quantized`. Ignored pixels keep theirs."""
    buffer = io.BytesIO()
    Image.fromarray(quantized(label_map.confidence)).save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "confidence"."""
    return ImageFileWriter(context, "confidence", lambda labels: encode(labels.label_map))
