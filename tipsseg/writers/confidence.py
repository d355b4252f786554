"""Confidence maps: one 8-bit grey PNG an image, 0..255 for a confidence of 0..1."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tipsseg.records import LabelMap
from tipsseg.writers import CONFIDENCE_FOLDER, RunContext
from tipsseg.writers.picture import PictureWriter


def encode(label_map: LabelMap) -> bytes:
    """The confidence as a PNG file, 8-bit grey: round(255 * confidence). Ignored pixels keep theirs."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(label_map.confidence * 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> PictureWriter:
    """The writer of format "confidence"."""
    return PictureWriter(context, CONFIDENCE_FOLDER, lambda _, label_map: encode(label_map))
