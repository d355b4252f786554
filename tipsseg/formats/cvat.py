"""CVAT's "Segmentation mask 1.1", which is PASCAL VOC's layout: colour masks, labelmap.txt and a list of the images.

Zip what is in cvat/ to upload it. There is no "ignored" in CVAT, so such pixels are background. The colours are those of VOC's
palette, as no two classes may have the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats import FORMATS, Rows, RunContext, output_name
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.types import BACKGROUND, LabelClass, LabelMap
from tipsseg.vocabulary.palette import voc_colour

_HEAD = "# label:color_rgb:parts:actions"


def colour_mask(label_map: LabelMap) -> NDArray[np.uint8]:
    """The labels as colours, [H, W, 3] RGB."""
    colours = np.zeros((int(np.iinfo(label_map.labels.dtype).max) + 1, 3), np.uint8)
    for each in label_map.classes:
        colours[each.id] = voc_colour(each.id)
    mask: NDArray[np.uint8] = colours[label_map.labels]
    return mask


def encode(label_map: LabelMap) -> bytes:
    """The colours as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(colour_mask(label_map)).save(buffer, format="PNG")
    return buffer.getvalue()


def label_map_text(classes: Sequence[LabelClass]) -> str:
    """labelmap.txt: what each colour means."""
    names = {each.name.casefold() for each in classes}
    black = next(name for name in _black_names() if name not in names)
    entries = [(black, BACKGROUND), *((each.name, each.id) for each in classes)]
    return "".join(f"{line}\n" for line in (_HEAD, *(f"{name}:{_rgb(label_id)}::" for name, label_id in entries)))


def _black_names() -> Iterator[str]:
    """What black may be called, the best first."""
    yield from ("background", "unlabelled", "void", "nothing of these")
    for number in count(2):
        yield f"background {number}"


def _rgb(label_id: int) -> str:
    return ",".join(map(str, voc_colour(label_id)))


class LabelMapFile:
    """labelmap.txt."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["cvat"].files[0]
        self._ownership = context.ownership
        self._classes = context.classes

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, see RunFile."""
        self._ownership.write_run_file(self.path, label_map_text(self._classes).encode("utf-8", "backslashreplace"))


class ImageSetFile:
    """ImageSets/Segmentation/default.txt: the names of the masks, without suffixes."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["cvat"].files[1]
        self._ownership = context.ownership
        self._names = context.files.names

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, see RunFile."""
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            for image in images:
                target.write(str(output_name(PurePosixPath(image), self._names)).encode() + b"\n")


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "cvat"."""
    return ImageFileWriter(context, "cvat", lambda labels: encode(labels.label_map))


def run_files(context: RunContext) -> tuple[LabelMapFile, ImageSetFile]:
    """The files of format "cvat"."""
    return LabelMapFile(context), ImageSetFile(context)
