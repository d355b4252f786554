"""Index masks: one PNG per image, whose pixel values are the label ids.

Grey scale ("L", or 16-bit above 254 classes) and not a palette, unless that is asked for: OpenCV reads palette PNGs as colours or
brightness.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import ImageError, InputError
from tipsseg.formats.base import Format, ImageLabels, RunFacts, StoredImage
from tipsseg.formats.problem import by, class_text
from tipsseg.options import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

    from tipsseg.types import LabelArray, LabelClass


#: Formats that do not give back the numbers that were put in.
_UNFIT_FORMATS = {
    "JPEG": "a JPEG, whose values are not exact",
    "MPO": "a JPEG, whose values are not exact",
    "GIF": "a GIF, which programs renumber when they save it",
}
_KINDS = {"F": "float pixels", "LA": "a picture with transparency", "PA": "a picture with transparency"}
_SAVE_AS_PNG = "Save it as a PNG of one channel, 8 or 16 bits, whose values are the class ids."
_TOP_ID = 65535

#: zlib's strategy Z_RLE.
_RUN_LENGTHS = 3


class Png(Format):
    name = "png"
    description = "index masks: masks/<image>.png, 0 background, 1..N the classes"
    folder = "masks"
    suffix = ".png"
    labels = "mask"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return encode_mask(image.labels, run.classes, run.files.png_mode)

    def read_labels(self, image: StoredImage, path: Path) -> LabelArray:
        return read_mask(path, image, image.options.png_mode)


def png_bytes(picture: Image.Image) -> bytes:
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

    from tipsseg.images.decoding import as_image_error
    from tipsseg.types import label_dtype

    wanted = mode if label_dtype(len(image.classes)) is np.uint8 else "I;16"
    picture = read_picture(path, image.size)
    with as_image_error(path):
        if picture.mode != wanted:
            raise InputError(f"a PNG of mode {picture.mode}, not a PNG of mode {wanted}")
        return stored_ids(picture)


def read_picture(path: Path, size: tuple[int, int]) -> Image.Image:
    """Return the PNG of an image of `size` (height, width). Raises ImageError; of another size no pixel is decoded."""
    from tipsseg.images.decoding import open_header

    with open_header(path, max(MAX_PIXELS, prod(size))) as image:
        if image.picture.format != "PNG":
            raise ImageError(path, f"a {image.picture.format}, whose pixels need not be exact", "Save masks as PNG.")
        if image.size != size:
            what = f"{by(image.size)}, where the image is {size[0]} x {size[1]}"
            raise ImageError(path, what, "Masks have the size of their image, turned upright.")
        return image.decode()


def stored_ids(picture: Image.Image) -> LabelArray:
    """Return the ids in a mask [H, W] as they are stored: palette indices or grey values, 0 and 1 in pictures of one bit.

    An EXIF orientation is not applied. Masks are made for the upright image; a mask that has the tag got it together with the other
    metadata of the photograph.

    Raises:
        InputError: The picture does not hold ids.
    """
    import numpy as np

    if 0 in picture.size:
        raise InputError("an image without pixels")
    if picture.format in _UNFIT_FORMATS:
        raise InputError(f"{_UNFIT_FORMATS[picture.format]}; masks must hold exact class ids", _SAVE_AS_PNG)
    if picture.mode in ("1", "L", "P"):
        return np.asarray(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > _TOP_ID:
            raise InputError(f"ids from {low} to {high}, where 0 to {_TOP_ID} is understood", _SAVE_AS_PNG)
        return values.astype(np.uint16)
    kind = _KINDS.get(picture.mode, "a colour picture")
    hint = (
        _SAVE_AS_PNG if picture.mode == "F" else f"{_SAVE_AS_PNG} If it is a photograph, images and masks are swapped."
    )
    raise InputError(f"{kind} ({picture.mode}); masks must hold class ids (grey or palette)", hint)


def label_faults(labels: LabelArray, image: StoredImage) -> Iterator[str]:
    """Yield ids in labels [H, W] that are not a class, and numbers of pixels that differ from the records of the image."""
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
