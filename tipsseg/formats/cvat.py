"""CVAT's "Segmentation mask 1.1" in the PASCAL VOC layout: colour masks, labelmap.txt and an image list.

To upload, zip the contents of cvat/. CVAT does not support ignored pixels, so they become background. The colours come from the VOC
palette, because CVAT needs a different colour for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, encode_text, output_name
from tipsseg.formats.png import encode_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import LabelArray, LabelClass

_HEAD = "# label:color_rgb:parts:actions"


class Cvat(Format):
    name = "cvat"
    description = "CVAT's Segmentation mask 1.1 (PASCAL VOC): cvat/SegmentationClass/<image>.png and image lists"
    folder = "cvat/SegmentationClass"
    suffix = ".png"
    files = ("cvat/labelmap.txt", "cvat/ImageSets/Segmentation/default.txt")
    forbidden_characters = ":#"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        return encode_picture(Image.fromarray(colour_mask(image.labels, run.classes)))

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        """Return labelmap.txt, which maps class names to colours, or the list of image names without suffixes."""
        if name == self.files[0]:
            return (encode_text(label_map_text(run.classes)),)
        return (f"{output_name(PurePosixPath(image), run.files.names)}\n".encode() for image in images)


def colour_mask(labels: LabelArray, classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Return labels [H, W] as RGB colours [H, W, 3]."""
    import numpy as np

    from tipsseg.vocabulary.palette import voc_colour

    colours = np.zeros((int(np.iinfo(labels.dtype).max) + 1, 3), np.uint8)
    for entry in classes:
        colours[entry.id] = voc_colour(entry.id)
    mask: NDArray[np.uint8] = colours[labels]
    return mask


def label_map_text(classes: Sequence[LabelClass]) -> str:
    from tipsseg.types import BACKGROUND

    names = {entry.name.casefold() for entry in classes}
    background = next(name for name in _background_names() if name not in names)
    entries = [(background, BACKGROUND), *((entry.name, entry.id) for entry in classes)]
    return "".join(f"{line}\n" for line in (_HEAD, *(f"{name}:{_rgb(label_id)}::" for name, label_id in entries)))


def _background_names() -> Iterator[str]:
    """Yield names for the background, best first."""
    yield from ("background", "unlabelled", "void", "nothing of these")
    for number in count(2):
        yield f"background {number}"


def _rgb(label_id: int) -> str:
    from tipsseg.vocabulary.palette import voc_colour

    return ",".join(map(str, voc_colour(label_id)))
