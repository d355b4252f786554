"""Index masks: one PNG an image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette, unless that is asked for: OpenCV reads palette PNGs as colours or
brightness.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tipsseg.formats import RunContext
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.types import LabelMap, label_dtype
from tipsseg.vocabulary.palette import palette_colour, voc_colour


def encode(label_map: LabelMap, mode: str = "L") -> bytes:
    """The labels as a PNG file: 8-bit grey, 16-bit above 254 classes; with `mode` "P" 8-bit, with the
    classes' own colours and those of PASCAL VOC's palette.
    """
    labels = label_map.labels.astype(label_dtype(len(label_map.classes)), copy=False)
    picture = Image.fromarray(np.ascontiguousarray(labels))
    if mode == "P":
        own = {each.id: palette_colour(each) for each in label_map.classes}
        picture.putpalette([value for index in range(256) for value in own.get(index) or voc_colour(index)])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "png"."""
    return ImageFileWriter(context, "png", lambda labels: encode(labels.label_map, context.files.png_mode))
