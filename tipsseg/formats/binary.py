"""Binary masks: a black and white PNG per class and image, 255 for the class. If the class is absent, the PNG is black."""

from __future__ import annotations

from collections.abc import Iterator

from tipsseg.formats.base import ImageLabels, PartsFormat, RunFacts, class_folder
from tipsseg.formats.png import encode_runs


class Binary(PartsFormat):
    name = "binary"
    description = "black and white masks: binary/<class>/<image>.png, one per class"
    folder = "binary"

    def encode_parts(self, image: ImageLabels, run: RunFacts) -> Iterator[tuple[str, bytes]]:
        import numpy as np
        from PIL import Image

        from tipsseg.regions.layers import class_mask, count_pixels

        counts = count_pixels(image.labels, image.layers)
        black = encode_runs(Image.fromarray(np.zeros(image.size, np.uint8)))
        for entry in run.classes:
            data = black
            if counts[entry.id]:
                mask = class_mask(image.labels, image.layers, entry.id)
                data = encode_runs(Image.fromarray(mask.view(np.uint8) * np.uint8(255)))
            yield class_folder(entry.name), data
