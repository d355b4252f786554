"""YOLO segmentation: a text file an image, a link to the image, and data.yaml.

Readers look for the text file of a path in that path with its last "images" changed to "labels". So both are leaf folders, in each
folder of the input tree: yolo/<folders>/images/<image> and yolo/<folders>/labels/<image>.txt.

Without --val-fraction data.yaml takes all images for training and for validation; with it, those in train.txt and in val.txt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from tipsseg.formats import FORMATS, Rows, RunContext, link_path
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import LabelClass

TRAIN_LIST, VAL_LIST = "train.txt", "val.txt"


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


def data_yaml(classes: Sequence[LabelClass], train: str = ".", val: str = ".") -> str:
    """The description of the data set: where its images are, from this file on, and the names of its classes."""
    # JSON's strings are YAML's.
    names = "".join(f"  {each.id - 1}: {json.dumps(each.name, ensure_ascii=False)}\n" for each in classes)
    return f"train: {train}\nval: {val}\nnames:\n{names}"


def is_for_validation(image: str, fraction: float) -> bool:
    """Whether the image of that name is among the `fraction` for validation: the same on every machine, whatever else there is."""
    # Not the hash by which shards and samples are drawn: of those too a part is to be for validation.
    digest = hashlib.sha256(b"val " + image.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") < fraction * (1 << 48)


class DataFile:
    """data.yaml."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["yolo"].files[0]
        self._ownership = context.ownership
        self._classes = context.classes
        self._lists = (TRAIN_LIST, VAL_LIST) if context.files.val_fraction else ()

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, see RunFile."""
        self._ownership.write_run_file(
            self.path, data_yaml(self._classes, *self._lists).encode("utf-8", "backslashreplace")
        )


class ImageList:
    """train.txt or val.txt: the images for one of both, a line each, from the folder of the file on."""

    def __init__(self, context: RunContext, name: str) -> None:
        self.path = (context.state / FORMATS["yolo"].files[0]).with_name(name)
        self._ownership = context.ownership
        self._fraction = context.files.val_fraction
        self._names = context.files.names
        self._validation = name == VAL_LIST

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, see RunFile."""
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            for image in images:
                if is_for_validation(image, self._fraction or 0.0) == self._validation:
                    target.write(f"./{_place(image, self._names)}\n".encode())


def _place(image: str, names: str) -> PurePosixPath:
    """Where the link to an image is, relative to data.yaml; `names` as of FileOptions."""
    place = link_path("yolo", PurePosixPath(image), names)
    if place is None:
        raise ValueError("the format yolo has images")
    return place.relative_to(PurePosixPath(FORMATS["yolo"].files[0]).parent)


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "yolo"."""
    return ImageFileWriter(context, "yolo", encode)


def run_files(context: RunContext) -> tuple[DataFile | ImageList, ...]:
    """The files of format "yolo"."""
    lists = (TRAIN_LIST, VAL_LIST) if context.files.val_fraction else ()
    return DataFile(context), *(ImageList(context, name) for name in lists)
