"""Index masks: one PNG per image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette, unless that is asked for: OpenCV reads palette PNGs as colours or
brightness.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import InputError
from tipsseg.formats.base import Format, ImageLabels, RunFacts, StoredImage
from tipsseg.formats.problem import by, class_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from tipsseg.types import LabelArray, LabelClass


#: zlib's strategy Z_RLE.
_RUN_LENGTHS = 3


class Png(Format):
    """The format "png"."""

    name = "png"
    description = "index masks: masks/<image>.png, 0 background, 1..N the classes"
    folder = "masks"
    suffix = ".png"
    labels = "mask"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return the mask, in the mode that the run asks for."""
        return encode_mask(image.labels, run.classes, run.files.png_mode)

    def read_labels(self, image: StoredImage, path: Path) -> LabelArray:
        """Return the label ids, see Format."""
        return read_mask(path, image, image.options.png_mode)


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_mask(labels: LabelArray, classes: Sequence[LabelClass], mode: str = "L") -> bytes:
    """Return label ids as a PNG file.

    Args:
        labels: [H, W], the label ids.
        classes: The classes.
        mode: "L", 8-bit grey, or 16-bit grey above 254 classes; or "P", 8-bit with a palette: the classes' own colours, and PASCAL
            VOC's.
    """
    import numpy as np
    from PIL import Image

    from tipsseg.types import label_dtype
    from tipsseg.vocabulary.palette import palette_colour, voc_colour

    picture = Image.fromarray(np.ascontiguousarray(labels, label_dtype(len(classes))))
    if mode == "P":
        own = {each.id: palette_colour(each) for each in classes}
        picture.putpalette([value for index in range(256) for value in own.get(index) or voc_colour(index)])
    buffer = io.BytesIO()
    # Masks are long runs of one number: to look for nothing else takes half the time, and the files are smaller.
    picture.save(buffer, format="PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def read_mask(path: Path, image: StoredImage, mode: str = "L") -> LabelArray:
    """Return the label ids [H, W] in the index mask of an image.

    Args:
        path: The mask.
        image: What the records say of the image.
        mode: The mode of the PNG, "L" or "P"; above 254 classes it is 16-bit grey.

    Raises:
        ImageError: There is no such mask of that size.
    """
    import numpy as np

    from tipsseg.images.decoding import as_image_error, decode_stored
    from tipsseg.types import label_dtype

    dtype = label_dtype(len(image.classes))
    wanted = mode if dtype is np.uint8 else "I;16"
    picture = decode_stored(path, image.max_pixels)
    with as_image_error(path):
        pixels = _pixels_of(picture, wanted, image.size)
    return pixels.astype(np.uint8) if dtype is np.uint8 else pixels.astype(np.uint16)


def _pixels_of(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    """The numbers in a PNG [H, W]. Raises InputError for a picture of another kind or size."""
    import numpy as np

    if picture.format != "PNG" or picture.mode != mode:
        raise InputError(f"a {picture.format} of mode {picture.mode}, not a PNG of mode {mode}")
    width, height = picture.size
    if (height, width) != size:
        raise InputError(f"{by((height, width))}, where the manifest says {by(size)}")
    return np.asarray(picture)


def label_faults(labels: LabelArray, image: StoredImage) -> Iterator[str]:
    """What label ids [H, W] say that the records of their image do not: ids that are no class, other numbers of pixels."""
    import numpy as np

    from tipsseg.regions.components import count_labels
    from tipsseg.types import BACKGROUND, ignore_id

    counts = count_labels(labels)
    known = {BACKGROUND: "background", ignore_id(len(image.classes)): "ignored pixels"}
    known |= {label_id: class_text(image.classes, label_id) for label_id in image.classes}
    found = {label_id: int(counts[label_id]) for label_id in np.flatnonzero(counts).tolist()}
    if unknown := sorted(found.keys() - known):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        yield f"ids that are no class: {unknown[0]}{more}"
    for label_id, what in known.items():
        number, wanted = found.get(label_id, 0), image.pixels.get(label_id, 0)
        if number != wanted:
            yield f"{number} pixels of {what}, where the manifest says {wanted}"
