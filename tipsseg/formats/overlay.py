"""Pictures for people: the labels as colours on the image, with a legend.

Not for machines: large images are scaled down, small ones up, and the colours are JPEG's. The masks are the labels.
"""

from __future__ import annotations

import io

from tipsseg.formats.base import Format, ImageLabels, RunContext


class Overlay(Format):
    """The format "overlay"."""

    name = "overlay"
    description = "pictures for eyes: overlays/<image>.jpg, with a legend"
    folder = "overlays"
    suffix = ".jpg"
    image = True
    pixels = True

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """The picture as a JPEG file. Raises ImageError where the image cannot be read."""
        from PIL import Image

        from tipsseg.regions.drawing import draw_labels

        label_map = labels.label_map
        picture = draw_labels(labels.thumbnail(), label_map.labels, label_map.classes, labels.ref.name)
        buffer = io.BytesIO()
        # Full colour resolution: by halves the outlines and the legend's text get coloured seams.
        Image.fromarray(picture).save(buffer, format="JPEG", quality=92, subsampling=0)
        return buffer.getvalue()
