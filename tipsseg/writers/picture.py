"""What the formats with one picture an image have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tipsseg.files import atomic_write
from tipsseg.records import ImageRef, LabelMap
from tipsseg.writers import RunContext, Written, output_path

#: (image [H, W, 3] RGB, its labels) -> the bytes of the picture's file.
Encode = Callable[[NDArray[np.uint8], LabelMap], bytes]


class PictureWriter:
    """Writes `encode`'s picture of each image to `folder`/<relative path>, with that folder's suffix."""

    def __init__(self, context: RunContext, folder: str, encode: Encode) -> None:
        self._context = context
        self._folder = folder
        self._encode = encode

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap) -> Written:
        """Write the image's picture; raises OutputError."""
        path = output_path(self._context.output, self._folder, ref.relative)
        atomic_write(path, self._encode(image, label_map), self._context.owner)
        return Written(path)
