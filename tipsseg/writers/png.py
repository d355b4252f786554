"""Index masks: one PNG an image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette: OpenCV reads palette PNGs as colours or brightness.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.files import atomic_write
from tipsseg.records import ImageRef, LabelMap, label_dtype
from tipsseg.writers import MASKS_FOLDER, RunContext, output_path


def encode(label_map: LabelMap) -> bytes:
    """The labels as a PNG file: 8-bit grey, 16-bit above 254 classes."""
    labels = label_map.labels.astype(label_dtype(len(label_map.classes)), copy=False)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(buffer, format="PNG")
    return buffer.getvalue()


class PngWriter:
    """Writes masks/<relative path>.png."""

    def __init__(self, context: RunContext) -> None:
        self._output = context.output

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap, index: int) -> Path:
        """Write the image's mask and return its path; raises OutputError."""
        path = output_path(self._output, MASKS_FOLDER, ref.relative)
        atomic_write(path, encode(label_map))
        return path

    def close(self) -> list[Path]:
        """No file stands for the whole run."""
        return []

    def abort(self) -> None:
        """Nothing to drop."""


def create(context: RunContext) -> PngWriter:
    """The writer of format "png"."""
    return PngWriter(context)
