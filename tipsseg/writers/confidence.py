"""Confidence maps: one 8-bit grey PNG an image, 0..255 for a confidence of 0..1."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.records import LabelMap
from tipsseg.writers import RunContext
from tipsseg.writers.image_file import ImageFileWriter


def quantized(confidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """round(255 * confidence), as 8 bits."""
    return np.rint(confidence * 255).astype(np.uint8)


def encode(label_map: LabelMap) -> bytes:
    """The confidence as a PNG file, 8-bit grey, see `quantized`. Ignored pixels keep theirs."""
    buffer = io.BytesIO()
    Image.fromarray(quantized(label_map.confidence)).save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "confidence"."""
    return ImageFileWriter(context, "confidence", lambda labels: encode(labels.label_map))
