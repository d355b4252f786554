"""Index masks: one PNG an image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette, unless that is asked for: OpenCV reads palette PNGs as colours or
brightness.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tipsseg.palette import voc_colour
from tipsseg.records import LabelMap, label_dtype
from tipsseg.writers import RunContext
from tipsseg.writers.image_file import ImageFileWriter

_VOC_PALETTE = [value for index in range(256) for value in voc_colour(index)]


def encode(label_map: LabelMap, mode: str = "L") -> bytes:
    """The labels as a PNG file: 8-bit grey, 16-bit above 254 classes; with `mode` "P" 8-bit, with the palette of PASCAL VOC."""
    labels = label_map.labels.astype(label_dtype(len(label_map.classes)), copy=False)
    picture = Image.fromarray(np.ascontiguousarray(labels))
    if mode == "P":
        picture.putpalette(_VOC_PALETTE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "png"."""
    return ImageFileWriter(context, "png", lambda labels: encode(labels.label_map, context.files.png_mode))
