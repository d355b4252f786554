"""YOLO segmentation: a text file per image, a link to the image, and data.yaml.

    yolo/images/train/<image>, yolo/labels/train/<image>.txt    and yolo/images/val, yolo/labels/val with a `val_fraction`

To find the text file of an image, readers replace the last folder "images" in its path with "labels". Folders of that name below
yolo/images therefore get an underscore.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, encode_text

if TYPE_CHECKING:
    from tipsseg.options import FileOptions

_FOLDER = "yolo"
IMAGES, LABELS = "images", "labels"
TRAIN, VAL = "train", "val"
_SPLITS = [TRAIN], [VAL], ["valid"], ["test"]

#: Folder names that get an underscore. "images_" gets another one, so that names stay unique.
_RESERVED = re.compile(rf"{IMAGES}_*")


class Yolo(Format):
    name = "yolo"
    description = (
        "YOLO segmentation: yolo/data.yaml, yolo/labels/train/<image>.txt, "
        "links to the images in yolo/images/train/; val beside train"
    )
    folder = f"{_FOLDER}/{LABELS}"
    suffix = ".txt"
    link_folder = f"{_FOLDER}/{IMAGES}"
    files = (f"{_FOLDER}/data.yaml",)
    needs_objects = True
    overlaps = True
    needs_image = True
    multi_part_objects = False
    splits_train_val = True

    def split(self, image: PurePosixPath, options: FileOptions) -> str:
        from tipsseg.types import printable_path

        return VAL if is_for_validation(printable_path(image), options.val_fraction or 0.0) else TRAIN

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        folders = (f"{name}_" if _RESERVED.fullmatch(name) else name for name in image.parent.parts)  # see `image_name`
        return PurePosixPath(self.split(image, options), *folders)

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return a line per object part: the class number, from 0, then x and y of each corner as fractions of the image size."""
        height, width = image.size
        lines = []
        for entry in image.objects:
            for ring in entry.outline.rings:
                corners = " ".join(f"{x / width:.6f} {y / height:.6f}" for y, x in ring.tolist())
                lines.append(f"{entry.region.class_id - 1} {corners}\n")
        return "".join(lines).encode("ascii")

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        """Yield data.yaml: the image folders, relative to this file, and the class names."""
        splits = {self.split(PurePosixPath(image), run.files) for image in images} or {TRAIN}
        for split in (TRAIN, VAL):  # a split without images has no folder
            yield f"{split}: {IMAGES}/{split if split in splits else min(splits)}\n".encode()
        yield b"names:\n"
        for entry in run.classes:
            # JSON strings are valid YAML.
            yield encode_text(f"  {entry.id - 1}: {json.dumps(entry.name, ensure_ascii=False)}\n")


def image_name(file: PurePosixPath, kind: str) -> str:
    """Return the image name from a path in a YOLO data set: the path without the folder `kind` (LABELS or IMAGES).

    Of several such folders, the first one directly above a split is dropped, or else the last one, as Roboflow places it.
    """
    *folders, name = file.parts or (".",)
    matches = [index for index, folder in enumerate(folders) if folder == kind]
    if matches:
        del folders[next((index for index in matches if folders[index + 1 : index + 2] in _SPLITS), matches[-1])]
    return str(PurePosixPath(*(part[:-1] if _RESERVED.fullmatch(part[:-1]) else part for part in folders), name))


def is_for_validation(image: str, fraction: float) -> bool:
    """Return True if an image is in the validation split, a `fraction` of all images. Depends only on its name."""
    # This hash must differ from the one that selects shards and samples, or a shard could get no validation images at all.
    digest = hashlib.sha256(b"val " + image.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") < fraction * (1 << 48)
