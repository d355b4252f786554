"""CVAT's "Segmentation mask 1.1", which is PASCAL VOC's layout: colour masks, labelmap.txt and a list of the images.

Zip what is in cvat/ to upload it. There is no "ignored" in CVAT, so such pixels are background. The colours are those of VOC's
palette, as no two classes may have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, output_name, spelled_out
from tipsseg.formats.png import png_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import LabelArray, LabelClass

_HEAD = "# label:color_rgb:parts:actions"


class Cvat(Format):
    name = "cvat"
    description = (
        "CVAT's Segmentation mask 1.1, which is PASCAL VOC's: cvat/SegmentationClass/<image>.png, lists beside them"
    )
    folder = "cvat/SegmentationClass"
    suffix = ".png"
    files = ("cvat/labelmap.txt", "cvat/ImageSets/Segmentation/default.txt")
    forbidden_characters = ":#"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        from PIL import Image

        return png_bytes(Image.fromarray(colour_mask(image.labels, run.classes)))

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        """Return labelmap.txt, which says what each colour means, or the names of the masks, without suffixes."""
        if name == self.files[0]:
            return (spelled_out(label_map_text(run.classes)),)
        return (f"{output_name(PurePosixPath(image), run.files.names)}\n".encode() for image in images)


def colour_mask(labels: LabelArray, classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Return labels [H, W] as colours, [H, W, 3] RGB."""
    import numpy as np

    from tipsseg.vocabulary.palette import voc_colour

    colours = np.zeros((int(np.iinfo(labels.dtype).max) + 1, 3), np.uint8)
    for each in classes:
        colours[each.id] = voc_colour(each.id)
    mask: NDArray[np.uint8] = colours[labels]
    return mask


def label_map_text(classes: Sequence[LabelClass]) -> str:
    from tipsseg.types import BACKGROUND

    names = {each.name.casefold() for each in classes}
    black = next(name for name in _black_names() if name not in names)
    entries = [(black, BACKGROUND), *((each.name, each.id) for each in classes)]
    return "".join(f"{line}\n" for line in (_HEAD, *(f"{name}:{_rgb(label_id)}::" for name, label_id in entries)))


def _black_names() -> Iterator[str]:
    """Yield what black may be called, the best first."""
    yield from ("background", "unlabelled", "void", "nothing of these")
    for number in count(2):
        yield f"background {number}"


def _rgb(label_id: int) -> str:
    from tipsseg.vocabulary.palette import voc_colour

    return ",".join(map(str, voc_colour(label_id)))
