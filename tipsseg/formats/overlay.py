"""Overlays: JPEG previews of the labels on the image, with a legend.

They are for viewing only: large images are scaled down, small ones up, and JPEG changes colours. For label ids, read the masks.
"""

from __future__ import annotations

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.png import encode_picture


class Overlay(Format):
    name = "overlay"
    description = "preview with colours, names and a legend: overlays/<image>.jpg"
    folder = "overlays"
    suffix = ".jpg"
    needs = frozenset({"thumbnail"})
    overlaps = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        from tipsseg.regions.drawing import draw_labels

        assert image.thumbnail is not None
        picture = draw_labels(image.thumbnail, image.labels, run.classes, image.ref.name, image.layers)
        # No chroma subsampling: it would fringe the outlines and the text of the legend with colour.
        return encode_picture(Image.fromarray(picture), format="JPEG", quality=92, subsampling=0)
