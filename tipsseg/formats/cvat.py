"""CVAT's "Segmentation mask 1.1", which is PASCAL VOC's layout: colour masks, labelmap.txt and a list of the images.

Zip what is in cvat/ to upload it. There is no "ignored" in CVAT, so such pixels are background. The colours are those of VOC's
palette, as no two classes may have the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, RunContext, RunFile, output_name, text_file
from tipsseg.formats.png import png_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.label_map import LabelMap
    from tipsseg.types import LabelClass

_HEAD = "# label:color_rgb:parts:actions"


class Cvat(Format):
    """The format "cvat"."""

    name = "cvat"
    description = (
        "CVAT's Segmentation mask 1.1, which is PASCAL VOC's: cvat/SegmentationClass/<image>.png, lists beside them"
    )
    folder = "cvat/SegmentationClass"
    suffix = ".png"
    files = ("cvat/labelmap.txt", "cvat/ImageSets/Segmentation/default.txt")
    reserved = ":#"

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """The colour mask as a PNG file."""
        from PIL import Image

        return png_bytes(Image.fromarray(colour_mask(labels.label_map)))

    def run_files(self, context: RunContext) -> tuple[RunFile, ...]:
        """labelmap.txt, which says what each colour means, and the names of the masks, without suffixes."""
        return (
            text_file(context, self.files[0], label_map_text),
            RunFile(context, self.files[1], partial(_mask_names, context.files.names)),
        )


def colour_mask(label_map: LabelMap) -> NDArray[np.uint8]:
    """The labels as colours, [H, W, 3] RGB."""
    import numpy as np

    from tipsseg.vocabulary.palette import voc_colour

    colours = np.zeros((int(np.iinfo(label_map.labels.dtype).max) + 1, 3), np.uint8)
    for each in label_map.classes:
        colours[each.id] = voc_colour(each.id)
    mask: NDArray[np.uint8] = colours[label_map.labels]
    return mask


def label_map_text(classes: Sequence[LabelClass]) -> str:
    """The text of labelmap.txt."""
    from tipsseg.types import BACKGROUND

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
    from tipsseg.vocabulary.palette import voc_colour

    return ",".join(map(str, voc_colour(label_id)))


def _mask_names(names: str, images: Sequence[str]) -> Iterator[bytes]:
    """The lines of the list of masks; `names` as of FileOptions."""
    for image in images:
        yield str(output_name(PurePosixPath(image), names)).encode() + b"\n"
