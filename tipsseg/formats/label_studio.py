"""Label Studio: label-studio.json, one task an image, with polygons as a prediction; and label-studio.xml, the labelling interface.

Images are named as Label Studio's local files, from the folder on that holds the image root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from tipsseg.formats import FORMATS, Rows, RunContext, Written
from tipsseg.formats.listing import read_records, write_rows
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_LOCAL_FILES = "/data/local-files/?d="

#: Names in the labelling interface.
_FROM, _TO = "label", "image"


def task_record(labels: ImageLabels, image: str, model: str) -> dict[str, object]:
    """A task with its prediction; `image` is the address of the image, corners are in percent of its sides."""
    height, width = labels.label_map.size
    names = {each.id: each.name for each in labels.label_map.classes}
    result = [
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
        for number, each in enumerate(labels.objects, start=1)
        for part, ring in enumerate(each.outline.rings, start=1)
    ]
    return {
        "data": {"image": image, "file_name": labels.ref.name},
        "predictions": [{"model_version": model, "result": result}],
    }


def local_address(ref: ImageRef) -> str:
    """The address of an image under Label Studio, whose document root is the folder that holds the image root."""
    # Not resolved: a link in the image root is named as it is in there.
    root = Path(os.path.abspath(ref.path)).parents[len(ref.relative.parts) - 1]  # noqa: PTH100
    return _LOCAL_FILES + quote(os.fsencode(f"{root.name}/{ref.relative}"))


def interface(classes: Sequence[LabelClass]) -> str:
    """The labelling interface, in XML."""
    labels = "".join(
        f'    <Label value={quoteattr(each.name)} background="#{bytes(each.colour).hex()}"/>\n' for each in classes
    )
    return (
        "<View>\n"
        f'  <Image name="{_TO}" value="$image"/>\n'
        f'  <PolygonLabels name="{_FROM}" toName="{_TO}">\n{labels}  </PolygonLabels>\n'
        "</View>\n"
    )


class LabelStudioWriter:
    """Makes the record of each image: its task."""

    def __init__(self, info: Mapping[str, object]) -> None:
        self._model = f"{info.get('model', '')} tipsseg {info.get('version', '')}".strip()

    def write(self, labels: ImageLabels) -> Written:
        """The record of one image."""
        return Written(rows=(json_bytes(task_record(labels, local_address(labels.ref), self._model)),))


class TasksFile:
    """label-studio.json."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["label-studio"].files[0]
        self._ownership = context.ownership

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The images in the file, see RowsFile."""
        for name, _ in self.read(images):
            yield name

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images in the file with their rows, see RowsFile."""
        with open_regular(self.path) as file:
            for line in read_records(file):
                try:
                    name = parse(line)["data"]["file_name"]
                except (KeyError, TypeError) as error:
                    raise ValueError("a task without the name of its image") from error
                yield name, (line,)

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the tasks in one list; raises OutputError."""
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            write_rows(target, (rows(image)[0] for image in images))
            target.write(b"\n")


class InterfaceFile:
    """label-studio.xml."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["label-studio"].files[1]
        self._ownership = context.ownership
        self._classes = context.classes

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, see RunFile."""
        self._ownership.write_run_file(self.path, interface(self._classes).encode("utf-8", "backslashreplace"))


def create(context: RunContext) -> LabelStudioWriter:
    """The writer of format "label-studio"."""
    return LabelStudioWriter(context.info)


def run_files(context: RunContext) -> tuple[TasksFile, InterfaceFile]:
    """The files of format "label-studio"."""
    return TasksFile(context), InterfaceFile(context)
