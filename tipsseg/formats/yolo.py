"""YOLO segmentation: a text file per image, a link to the image, and data.yaml.

Readers look for the text file of a path in that path with its last "images" changed to "labels". So both are leaf folders, in each
folder of the input tree: yolo/<folders>/images/<image> and yolo/<folders>/labels/<image>.txt.

Without a `val_fraction` data.yaml takes all images for training and for validation; with it, those in train.txt and in val.txt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, RunContext, RunFile, text_file

if TYPE_CHECKING:
    from tipsseg.types import LabelClass

_FOLDER = "yolo"
TRAIN_LIST, VAL_LIST = "train.txt", "val.txt"


class Yolo(Format):
    """The format "yolo"."""

    name = "yolo"
    description = (
        "YOLO segmentation: yolo/data.yaml, yolo/<folder>/labels/<image>.txt, "
        "links to the images in yolo/<folder>/images/"
    )
    folder = _FOLDER
    suffix = ".txt"
    leaf = "labels"
    links = _FOLDER
    links_leaf = "images"
    paired = True
    files = (f"{_FOLDER}/data.yaml",)
    parts = False
    image = True
    divides = True

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """A line for each part of each object: the class, from 0, then x and y of each corner as shares of the image."""
        height, width = labels.label_map.size
        lines = []
        for each in labels.objects:
            for ring in each.outline.rings:
                corners = " ".join(f"{x / width:.6f} {y / height:.6f}" for y, x in ring.tolist())
                lines.append(f"{each.region.class_id - 1} {corners}\n")
        return "".join(lines).encode("ascii")

    def run_files(self, context: RunContext) -> tuple[RunFile, ...]:
        """data.yaml, and the lists of images for training and for validation where there are some for each."""
        lists = (TRAIN_LIST, VAL_LIST) if context.files.val_fraction else ()
        return (
            text_file(context, self.files[0], lambda classes: data_yaml(classes, *lists)),
            *(RunFile(context, f"{_FOLDER}/{name}", partial(self._listed, context, name)) for name in lists),
        )

    def _listed(self, context: RunContext, name: str, images: Sequence[str]) -> Iterator[bytes]:
        """The lines of TRAIN_LIST or VAL_LIST: links to the images, from the folder of the list on."""
        for image in images:
            if is_for_validation(image, context.files.val_fraction or 0.0) == (name == VAL_LIST):
                link = self.link_path(PurePosixPath(image), context.files.names)
                if link is None:
                    raise ValueError("the format yolo has links to the images")
                yield f"./{link.relative_to(_FOLDER)}\n".encode()


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
