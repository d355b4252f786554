"""Label Studio: label-studio.json, one task per image, with polygons as a prediction; and label-studio.xml, the interface.

Images are named as Label Studio's local files, from the folder on that holds the image root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, spelled_out
from tipsseg.formats.listing import list_pieces, read_list
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import ImageRef, LabelClass

_LOCAL_FILES = "/data/local-files/?d="

#: Names in the labelling interface.
_FROM, _TO = "label", "image"


class LabelStudio(Format):
    name = "label-studio"
    description = "Label Studio: label-studio.json, polygons as predictions, and the interface, label-studio.xml"
    files = ("label-studio.json", "label-studio.xml")
    has_rows = True
    needs_objects = True
    needs_image = True
    scores_objects = True
    multi_part_objects = False

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        task = {
            "data": {"image": local_address(image.ref), "file_name": image.ref.name},
            "predictions": [
                {"model_version": _model_version(run.info), **_score(image.objects), "result": _polygons(image, run)}
            ],
        }
        return (json_bytes(task),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        if name == self.files[0]:
            return chain(list_pieces(rows(image)[0] for image in images), (b"\n",))
        return (spelled_out(_interface(run.classes)),)

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        with open_regular(path) as file:
            for line in read_list(file):
                try:
                    name = parse(line)["data"]["file_name"]
                except (KeyError, TypeError) as error:
                    raise ValueError("a task without the name of its image") from error
                yield name, (line,)


def local_address(ref: ImageRef) -> str:
    """Return the address of an image under Label Studio, whose document root is the folder that holds the image root."""
    from urllib.parse import quote

    # Not resolved: a link in the image root is named as it is in there.
    root = Path(os.path.abspath(ref.path)).parents[len(ref.relative.parts) - 1]  # noqa: PTH100
    return _LOCAL_FILES + quote(os.fsencode(f"{root.name}/{ref.relative}"))


def _model_version(info: Mapping[str, object]) -> str:
    return f"{info.get('model', '')} tipsseg {info.get('version', '')}".strip()


def _score(objects: Sequence[LabelledObject]) -> dict[str, float]:
    """The score of the prediction, by which Label Studio orders and samples tasks: the mean confidence, 0..1, of all pixels of its
    objects; nothing where there is no object.

    It is of the scores of the objects, which every command knows, so that all write the same.
    """
    pixels = sum(each.region.area for each in objects)
    if not pixels:
        return {}
    return {"score": round(sum(each.region.area * each.score for each in objects) / pixels, 4)}


def _polygons(image: ImageLabels, run: RunFacts) -> list[dict[str, object]]:
    """Return the results of a prediction, one for each part of each object; corners are in percent of the image's sides."""
    height, width = image.size
    names = {each.id: each.name for each in run.classes}
    return [
        {
            "id": f"{number}-{part}",
            "type": "polygonlabels",
            "from_name": _FROM,
            "to_name": _TO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": each.score,
            "value": {
                "points": [[round(100 * x / width, 5), round(100 * y / height, 5)] for y, x in ring.tolist()],
                "closed": True,
                "polygonlabels": [names[each.region.class_id]],
            },
        }
        for number, each in enumerate(image.objects, start=1)
        for part, ring in enumerate(each.outline.rings, start=1)
    ]


def _interface(classes: Sequence[LabelClass]) -> str:
    from xml.sax.saxutils import quoteattr

    labels = "".join(
        f'    <Label value={quoteattr(each.name)} background="#{bytes(each.colour).hex()}"/>\n' for each in classes
    )
    return (
        "<View>\n"
        f'  <Image name="{_TO}" value="$image"/>\n'
        f'  <PolygonLabels name="{_FROM}" toName="{_TO}">\n{labels}  </PolygonLabels>\n'
        "</View>\n"
    )
