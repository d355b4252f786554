"""Pictures for people: the labels as colours on the image, with a legend.

Not for machines: large images are scaled down, small ones up, and the colours are JPEG's. The masks are the labels.
"""

from __future__ import annotations

import io

from tipsseg.formats.base import Format, ImageLabels, RunFacts


class Overlay(Format):
    name = "overlay"
    description = "pictures for eyes: overlays/<image>.jpg, with a legend"
    folder = "overlays"
    suffix = ".jpg"
    needs_image = True
    needs_thumbnail = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        from tipsseg.regions.drawing import draw_labels

        assert image.thumbnail is not None
        picture = draw_labels(image.thumbnail, image.labels, run.classes, image.ref.name)
        buffer = io.BytesIO()
        # Full colour resolution: by halves the outlines and the legend's text get coloured seams.
        Image.fromarray(picture).save(buffer, format="JPEG", quality=92, subsampling=0)
        return buffer.getvalue()
