"""Instance masks: one 16-bit PNG per image. Values number the objects from 1, in the order of other formats; 0 is background."""

from __future__ import annotations

from tipsseg.errors import ImageError
from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.panoptic import segment_ids
from tipsseg.formats.png import encode_picture

_MOST = 65_535


class Instances(Format):
    name = "instances"
    description = "instance masks, 16 bits: instances/<image>.png, 0 background, 1..N the objects"
    folder = "instances"
    suffix = ".png"
    needs_objects = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        import numpy as np
        from PIL import Image

        if len(image.objects) > _MOST:
            raise ImageError(
                image.ref.path,
                f"{len(image.objects):,} objects, but a 16-bit instance mask can store only {_MOST:,}",
                "Omit small objects with argument `min_area`, or write the format panoptic.",
            )
        return encode_picture(Image.fromarray(segment_ids(image.objects, image.size).astype(np.uint16)))
