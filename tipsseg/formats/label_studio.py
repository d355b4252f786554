"""Label Studio: label-studio.json with one task per image and polygons as predictions, label-studio.xml with the interface.

Image URLs point to Label Studio's local files, relative to the parent of the image root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.address import is_url
from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, encode_text
from tipsseg.util.files import json_bytes
from tipsseg.util.json_lists import encode_list

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import ImageRef, LabelClass

_LOCAL_FILES = "/data/local-files/?d="

#: Names of the control tag and the object tag in the labelling interface.
_FROM, _TO = "label", "image"


class LabelStudio(Format):
    name = "label-studio"
    description = "Label Studio predictions: label-studio.json, and the labelling interface, label-studio.xml"
    files = ("label-studio.json", "label-studio.xml")
    has_rows = True
    needs_objects = True
    needs_image = True
    overlaps = True
    multi_part_objects = False

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        task = {
            "data": {"image": local_files_url(image.ref), "file_name": image.ref.name},
            "predictions": [
                {"model_version": _model_version(run.info), **_score(image.objects), "result": _polygons(image, run)}
            ],
        }
        return (json_bytes(task),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        if name == self.files[0]:
            return chain(encode_list(rows(image)[0] for image in images), (b"\n",))
        return (encode_text(_interface(run.classes)),)


def local_files_url(ref: ImageRef) -> str:
    """Return the URL of an image: its own, or that in Label Studio if its document root is the parent of the image root."""
    if is_url(ref.path):
        return ref.address
    from urllib.parse import quote

    # Links are not resolved: a link in the image root keeps its own name.
    root = Path(os.path.abspath(ref.path)).parents[len(ref.relative.parts) - 1]  # noqa: PTH100
    return _LOCAL_FILES + quote(os.fsencode(f"{root.name}/{ref.relative}"))


def _model_version(info: Mapping[str, object]) -> str:
    return f"{info.get('model', '')} tipsseg {info.get('version', '')}".strip()


def _score(objects: Sequence[LabelledObject]) -> dict[str, float]:
    """Return the `score` of a prediction; {} if it has no objects. Label Studio uses it to order and sample tasks.

    The score is the mean confidence of all object pixels, 0..1. It is computed from object scores, which every command has, so that
    all commands write the same value.
    """
    pixels = sum(entry.region.area for entry in objects)
    if not pixels:
        return {}
    return {"score": round(sum(entry.region.area * entry.score for entry in objects) / pixels, 4)}


def _polygons(image: ImageLabels, run: RunFacts) -> list[dict[str, object]]:
    """Return the results of a prediction: one per part of an object, with corners in percent of the image size."""
    height, width = image.size
    names = run.class_names()
    return [
        {
            "id": f"{number}-{part}",
            "type": "polygonlabels",
            "from_name": _FROM,
            "to_name": _TO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": entry.score,
            "value": {
                "points": [[round(100 * x / width, 5), round(100 * y / height, 5)] for y, x in ring.tolist()],
                "closed": True,
                "polygonlabels": [names[entry.region.class_id]],
            },
        }
        for number, entry in enumerate(image.objects, start=1)
        for part, ring in enumerate(entry.outline.rings, start=1)
    ]


def _interface(classes: Sequence[LabelClass]) -> str:
    from xml.sax.saxutils import quoteattr

    labels = "".join(
        f'    <Label value={quoteattr(entry.name)} background="#{bytes(entry.colour).hex()}"/>\n' for entry in classes
    )
    return (
        "<View>\n"
        f'  <Image name="{_TO}" value="$image"/>\n'
        f'  <PolygonLabels name="{_FROM}" toName="{_TO}">\n{labels}  </PolygonLabels>\n'
        "</View>\n"
    )
