"""LabelMe: one JSON file with polygons and one link per image. Parts of the same object share a `group_id`."""

from __future__ import annotations

from pathlib import PurePosixPath

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.util.files import json_bytes

#: The LabelMe version whose format is written.
_VERSION = "5.5.0"


class LabelMe(Format):
    name = "labelme"
    description = "LabelMe: labelme/<image>.json, with links to the images"
    folder = "labelme"
    suffix = ".json"
    link_folder = "labelme"
    needs_image = True
    needs_objects = True
    overlaps = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from tipsseg.types import printable_path

        height, width = image.size
        record: dict[str, object] = {
            "version": _VERSION,
            "flags": {},
            "shapes": _shapes(image, run),
            "imagePath": printable_path(PurePosixPath(self.link_name(image.ref.relative, run.files))),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        return json_bytes(record, indent=2) + b"\n"


def _shapes(image: ImageLabels, run: RunFacts) -> list[dict[str, object]]:
    names = run.class_names()
    return [
        {
            "label": names[entry.region.class_id],
            "points": ring[:, ::-1].tolist(),
            "group_id": number if len(entry.outline.rings) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for number, entry in enumerate(image.objects, start=1)
        for ring in entry.outline.rings
    ]
