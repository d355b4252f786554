"""YOLO segmentation: a text file per image, a link to the image, and data.yaml.

    yolo/images/train/<image>, yolo/labels/train/<image>.txt    and `val` beside `train` with a `val_fraction`

Readers change the last folder "images" of a path to "labels" to find the text file, so no folder of an image may have that name
below yolo/images: there an underscore follows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, spelled_out

if TYPE_CHECKING:
    from tipsseg.options import FileOptions

_FOLDER = "yolo"
IMAGES, LABELS = "images", "labels"
TRAIN, VAL = "train", "val"
_PARTS = [TRAIN], [VAL], ["valid"], ["test"]

#: Folders whose names get one underscore more, so that no two become one.
_TAKEN = re.compile(rf"{IMAGES}_*")


class Yolo(Format):
    name = "yolo"
    description = (
        "YOLO segmentation: yolo/data.yaml, yolo/labels/train/<image>.txt, "
        "links to the images in yolo/images/train/, and val beside train"
    )
    folder = f"{_FOLDER}/{LABELS}"
    suffix = ".txt"
    link_folder = f"{_FOLDER}/{IMAGES}"
    files = (f"{_FOLDER}/data.yaml",)
    former_files = (f"{_FOLDER}/train.txt", f"{_FOLDER}/val.txt")
    needs_objects = True
    needs_image = True
    multi_part_objects = False
    splits_train_val = True

    def split(self, image: PurePosixPath, options: FileOptions) -> str:
        from tipsseg.types import printable_path

        return VAL if is_for_validation(printable_path(image), options.val_fraction or 0.0) else TRAIN

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        """Return the folder below that of the part."""
        folders = (f"{name}_" if _TAKEN.fullmatch(name) else name for name in image.parent.parts)  # see `image_name`
        return PurePosixPath(self.split(image, options), *folders)

    def places(self, image: PurePosixPath, options: FileOptions) -> Mapping[str, PurePosixPath | None]:
        """Return the places in each part, and those of an earlier version, yolo/<folder>/labels and yolo/<folder>/images."""
        file, link = self.relative_path(image, options), self.link_path(image, options)
        assert file is not None
        assert link is not None
        found: dict[str, PurePosixPath | None] = {str(file): link}
        found |= {str(_in(part, file)): _in(part, link) for part in (TRAIN, VAL)}
        top = PurePosixPath(_FOLDER) / image.parent
        return found | {str(top / LABELS / file.name): top / IMAGES / link.name}

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return a line for each part of each object: the class, from 0, then x and y of each corner as shares of the image."""
        height, width = image.size
        lines = []
        for each in image.objects:
            for ring in each.outline.rings:
                corners = " ".join(f"{x / width:.6f} {y / height:.6f}" for y, x in ring.tolist())
                lines.append(f"{each.region.class_id - 1} {corners}\n")
        return "".join(lines).encode("ascii")

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        """Return data.yaml: the folders of the images, from this file on, and the names of the classes."""
        parts = {self.split(PurePosixPath(image), run.files) for image in images} or {TRAIN}
        for part in (TRAIN, VAL):  # a part without images is a folder that is not there
            yield f"{part}: {IMAGES}/{part if part in parts else min(parts)}\n".encode()
        yield b"names:\n"
        for each in run.classes:
            # JSON's strings are YAML's.
            yield spelled_out(f"  {each.id - 1}: {json.dumps(each.name, ensure_ascii=False)}\n")


def image_name(file: PurePosixPath, kind: str) -> str:
    """Return what a path in a data set of YOLO calls its image: the path without the folder `kind`, LABELS or IMAGES.

    That is the first that has a folder for each part of the data, or the last, as in Roboflow and earlier versions.
    """
    *folders, name = file.parts or (".",)
    found = [at for at, folder in enumerate(folders) if folder == kind]
    if found:
        del folders[next((at for at in found if folders[at + 1 : at + 2] in _PARTS), found[-1])]
    return str(PurePosixPath(*(each[:-1] if _TAKEN.fullmatch(each[:-1]) else each for each in folders), name))


def _in(part: str, path: PurePosixPath) -> PurePosixPath:
    folder, kind, _, *rest = path.parts
    return PurePosixPath(folder, kind, part, *rest)


def is_for_validation(image: str, fraction: float) -> bool:
    """Tell whether an image is among the `fraction` for validation: the same on every machine, whatever other images there are."""
    # Not the hash by which shards and samples are drawn: of those too a part is to be for validation.
    digest = hashlib.sha256(b"val " + image.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") < fraction * (1 << 48)
