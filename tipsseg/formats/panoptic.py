"""COCO panoptic: one RGB PNG per image, whose colours are segment ids, and panoptic.json, which describes the segments.

A segment is an object. Its id, R + 256 G + 65536 B, counts from 1 in each image. Id 0 ("void") marks pixels outside all objects:
background, ignored pixels and objects below the minimum area. With parts, see `base.divided`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, divided, divided_classes, output_name
from tipsseg.formats.coco import annotation_record, category_record, encode_head, image_lines, image_record
from tipsseg.formats.png import encode_picture
from tipsseg.util.json import encode_section, json_bytes, prepend


class Panoptic(Format):
    name = "panoptic"
    description = "COCO panoptic: panoptic/<image>.png and panoptic.json"
    folder = "panoptic"
    suffix = ".png"
    files = ("panoptic.json",)
    needs = frozenset({"objects"})
    divides = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        import numpy as np
        from PIL import Image

        from tipsseg.regions.objects import number_pixels

        ids = number_pixels(enumerate((entry.region for entry in divided(image, run)), start=1), image.size)
        colours = ids.astype("<u4").view(np.uint8).reshape(*image.size, 4)[..., :3]  # [H, W, 3]
        return encode_picture(Image.fromarray(colours))

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the `images` entry and the `annotations` entry, without the image id."""
        from tipsseg.types import printable_path

        segments = [
            {"id": number, **annotation_record(entry)} for number, entry in enumerate(divided(image, run), start=1)
        ]
        file_name = f"{printable_path(output_name(image.ref.relative, run.files.names))}.png"
        record = image_record(image.ref, image.size)
        return json_bytes(record), json_bytes({"file_name": file_name, "segments_info": segments})

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        # With one segment per class, classes are stuff, not countable things.
        thing = run.files.instances != "class"
        categories = (
            {
                **category_record(each),
                "isthing": int(thing if each.thing is None else each.thing),
                "color": list(each.colour),
            }
            for each in divided_classes(run)
        )
        yield from encode_head(run, "segment", categories)
        yield from encode_section(b"images", image_lines(images, rows))
        annotations = (
            prepend(b'"image_id": %d' % number, rows(image)[1]) for number, image in enumerate(images, start=1)
        )
        yield from encode_section(b"annotations", annotations)
        yield b"\n}\n"
