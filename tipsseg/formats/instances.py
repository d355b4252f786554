"""Instance masks: one 16-bit PNG per image. Values number the objects from 1, in the order of other formats; 0 is background.

A part has the number of its whole. In a run with regions, the regions below the minimum area follow the objects. Of such a file
that a person edited, the numbers are read: the labels stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from tipsseg.errors import ImageError, Words
from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.png import encode_picture, read_ids, read_source_picture
from tipsseg.formats.records import ClassNames, PixelLabels, Size, SourceImage
from tipsseg.formats.source import Source
from tipsseg.images.decoding import as_image_error
from tipsseg.regions.objects import number_pixels

_MOST = 65_535


class InstanceMasks(Format):
    name = "instances"
    description = "instance masks, 16 bits: instances/<image>.png, 0 background, 1..N the objects"
    folder = "instances"
    needs = frozenset({"objects"})

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        wholes = {entry.id for entry in run.classes if not entry.part_of}
        numbered = enumerate((entry.region for entry in image.objects), start=1)
        ids = number_pixels(((number, each) for number, each in numbered if each.class_id in wholes), image.size)
        if image.instances is not None:
            small = (image.instances > 0) & (ids == 0)
            ids[small] = len(image.objects) + 1 + np.unique(image.instances[small], return_inverse=True)[1]
        if (number := int(ids.max())) > _MOST:
            raise ImageError(
                image.ref.path,
                f"{number:,} objects, but a 16-bit instance mask can store only {_MOST:,}",
                Words("Omit small objects with {min_area}, or write the format panoptic."),
            )
        return encode_picture(Image.fromarray(ids.astype(np.uint16)))

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield an image for each PNG. A PNG is named after its image."""
        for name in source.find_suffix(".png"):
            yield SourceImage(name[: -len(".png")], source.display_path(name), partial(_read_instances, source, name))


def _read_instances(source: Source, name: str, size: Size) -> PixelLabels:
    picture = read_source_picture(source, name, size)
    with as_image_error(source.display_path(name)):
        return PixelLabels(None, instances=read_ids(picture).astype(np.int32))
