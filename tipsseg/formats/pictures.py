"""Pictures of the labels: overlays with a legend, black and white masks of each class, and cutouts of the objects.

Overlays are for viewing only: large images are scaled down, small ones up, and JPEG changes colours. For label ids, read the masks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from tipsseg.formats.base import Format, ImageLabels, PartsFormat, RunFacts, class_folder
from tipsseg.formats.png import encode_picture, encode_runs
from tipsseg.regions.drawing import draw_labels
from tipsseg.regions.objects import class_mask, count_pixels


class Overlay(Format):
    name = "overlay"
    description = "preview with colours, names and a legend: overlays/<image>.jpg"
    folder = "overlays"
    suffix = ".jpg"
    needs = frozenset({"thumbnail"})
    colours = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        assert image.thumbnail is not None
        picture = draw_labels(image.thumbnail, image.labels, run.classes, image.ref.name)
        # No chroma subsampling: it would fringe the outlines and the text of the legend with colour.
        return encode_picture(Image.fromarray(picture), format="JPEG", quality=92, subsampling=0)


class Binary(PartsFormat):
    """A black and white PNG per class and image, 255 for the class with its parts. If the class is absent, the PNG is black."""

    name = "binary"
    description = "black and white masks: binary/<class>/<image>.png, one per class"
    folder = "binary"

    def encode_parts(self, image: ImageLabels, run: RunFacts) -> Iterator[tuple[str, bytes]]:
        counts = count_pixels(image.labels, run.classes)
        black = encode_runs(Image.fromarray(np.zeros(image.size, np.uint8)))
        for entry in run.classes:
            data = black
            if counts[entry.id]:
                mask = class_mask(image.labels, run.classes, entry.id)
                data = encode_runs(Image.fromarray(mask.view(np.uint8) * np.uint8(255)))
            yield class_folder(entry.name), data


class Cutouts(PartsFormat):
    """A transparent PNG per object, cropped to its box. File names end with the number of the object in the image.

    Numbers match the format instances: 1, 2, ... in the order in which other formats list the objects.
    """

    name = "cutouts"
    description = "transparent pictures of the objects: cutouts/<class>/<image>-<number>.png"
    folder = "cutouts"
    numbers_files = True
    needs = frozenset({"objects", "pixels"})

    def encode_parts(self, image: ImageLabels, run: RunFacts) -> Iterator[tuple[str, bytes]]:
        assert image.pixels is not None
        folders = {entry.id: class_folder(entry.name) for entry in run.classes}
        for number, entry in enumerate(image.objects, start=1):
            y, x, h, w = entry.region.box
            picture = np.zeros((h, w, 4), np.uint8)
            picture[..., :3] = image.pixels[y : y + h, x : x + w]
            picture[..., 3] = 255
            picture[~entry.region.mask] = 0
            yield f"{folders[entry.region.class_id]}/{number}", encode_picture(Image.fromarray(picture))
