"""Index masks: one PNG an image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette: OpenCV reads palette PNGs as colours or brightness.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tipsseg.records import LabelMap, label_dtype
from tipsseg.writers import MASKS_FOLDER, RunContext
from tipsseg.writers.picture import PictureWriter


def encode(label_map: LabelMap) -> bytes:
    """The labels as a PNG file: 8-bit grey, 16-bit above 254 classes."""
    labels = label_map.labels.astype(label_dtype(len(label_map.classes)), copy=False)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> PictureWriter:
    """The writer of format "png"."""
    return PictureWriter(context, MASKS_FOLDER, lambda _, label_map: encode(label_map))
