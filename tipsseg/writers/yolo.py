"""YOLO segmentation: a text file an image, a link to the image, and data.yaml.

Readers look for the text file of a path in that path with its last "images" changed to "labels". So both are leaf folders, in each
folder of the input tree: yolo/<folders>/images/<image> and yolo/<folders>/labels/<image>.txt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tipsseg.image_labels import ImageLabels
from tipsseg.records import LabelClass
from tipsseg.writers import FORMATS, Records, RunContext
from tipsseg.writers.image_file import ImageFileWriter


def label_lines(labels: ImageLabels) -> list[str]:
    """A line for each part of each object: the class, from 0, then x and y of each corner as shares of the image."""
    height, width = labels.label_map.size
    lines = []
    for each in labels.objects:
        for ring in each.outline.rings:
            corners = " ".join(f"{x / width:.6f} {y / height:.6f}" for y, x in ring.tolist())
            lines.append(f"{each.region.class_id - 1} {corners}")
    return lines


def encode(labels: ImageLabels) -> bytes:
    """The text file of an image; empty where there is no object."""
    return "".join(f"{line}\n" for line in label_lines(labels)).encode("ascii")


def data_yaml(classes: Sequence[LabelClass]) -> str:
    """The description of the data set: where its images are, from this file on, and the names of its classes."""
    # JSON's strings are YAML's.
    names = "".join(f"  {each.id - 1}: {json.dumps(each.name, ensure_ascii=False)}\n" for each in classes)
    return f"train: .\nval: .\nnames:\n{names}"


class DataFile:
    """data.yaml."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.records / FORMATS["yolo"].files[0]
        self._ownership = context.ownership
        self._classes = context.classes

    def write(self, images: Sequence[str], records: Callable[[str], Records]) -> None:
        """Write the file, see RunFile."""
        self._ownership.write_run_file(self.path, data_yaml(self._classes).encode("utf-8", "backslashreplace"))


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "yolo"."""
    return ImageFileWriter(context, "yolo", encode)


def run_files(context: RunContext) -> tuple[DataFile]:
    """The file of format "yolo"."""
    return (DataFile(context),)
