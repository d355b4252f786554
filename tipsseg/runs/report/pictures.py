"""Draw an image's files for the page: a picture, a thumbnail with its labels, a map of labels and confidences."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats.png import encode_picture
from tipsseg.regions.name_places import inner_point, largest_regions
from tipsseg.runs.report.scripts import script
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, ignore_id

#: The longest side, in pixels, of a picture and of a thumbnail.
PICTURE_SIDE = 800
THUMBNAIL_SIDE = 240

#: The opacity of class colours on a thumbnail.
_TINT = 0.45

#: The colours of outlines, of ignored pixels, and of a missing image.
_OUTLINE = (20, 20, 20)
_IGNORED = (128, 128, 128)
_NO_IMAGE = 200


def shown_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the display size (h, w) of an image of `size`: no side longer than `side`, never enlarged."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def picture(image: NDArray[np.uint8] | None, size: tuple[int, int]) -> Image.Image:
    """Scale an image [H, W, 3] RGB uint8 to the `size` (H, W) of its labels or smaller. Without an image, return a grey picture."""
    height, width = shown_size(size, PICTURE_SIDE)
    if image is None:
        return Image.new("RGB", (width, height), (_NO_IMAGE,) * 3)
    return Image.fromarray(image).resize((width, height), Image.Resampling.BOX)


def thumbnail(shown: Image.Image, labels: LabelArray, classes: Sequence[LabelClass]) -> Image.Image:
    """Draw a thumbnail of a picture with the colours and outlines of its labels [H, W]."""
    height, width = shown_size(labels.shape, THUMBNAIL_SIDE)
    small = shown.resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)  # [h, w, 3]
    ids = resample(labels, (height, width))  # [h, w]
    colours = np.zeros((int(ids.max()) + 1, 3), np.float32)
    for entry in classes:
        if entry.id < len(colours):
            colours[entry.id] = entry.colour
    if ignore_id(len(classes)) < len(colours):
        colours[ignore_id(len(classes))] = _IGNORED
    painted = np.where((ids == BACKGROUND)[..., None], pixels, (1 - _TINT) * pixels + _TINT * colours[ids])
    painted[_outlines(ids)] = _OUTLINE
    return Image.fromarray(painted.round().astype(np.uint8))


def resample(values: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Resample values [H, W] to a new size (h, w) with nearest-neighbour sampling."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]  # [h, w]


def jpeg(shown: Image.Image) -> bytes:
    return encode_picture(shown, format="JPEG", quality=82)


def map_script(
    key: str,
    labels: LabelArray,
    confidence: NDArray[np.float32] | None,
    objects: NDArray[np.uint32] | None = None,
    others: LabelArray | None = None,
) -> bytes:
    """Encode labels [H, W] and, if known, confidences [H, W] in 0..1 and the numbers of objects [H, W] as a script.

    It contains PNGs as base64, because a page opened from disk may not read the pixels of an image file. They have the size of the
    picture. In the first, red is the low byte of the label id, green its high byte, blue the confidence times 255. In the second,
    red, green and blue are the bytes of the number, low byte first. The third has other labels like the first.
    """
    size = shown_size(labels.shape, PICTURE_SIDE)
    planes = _bytes_of(resample(labels, size))
    if confidence is not None:
        planes[..., 2] = np.rint(np.clip(resample(confidence, size), 0, 1).astype(np.float32) * 255)
    more = [None if values is None else _data_url(_bytes_of(resample(values, size))) for values in (objects, others)]
    return script("map", key, _data_url(planes), *more)


def _bytes_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the three lowest bytes of whole numbers, low byte first, [h, w] -> [h, w, 3]."""
    return np.stack([values.astype(np.uint32) >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def _data_url(planes: NDArray[np.uint8]) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_picture(Image.fromarray(planes))).decode('ascii')}"


def name_places(labels: LabelArray, number_of_classes: int) -> list[tuple[int, int, int]]:
    """Return (class id, y, x) for the name of each class on the picture: a point inside its largest region in labels [H, W]."""
    small = resample(labels, shown_size(labels.shape, PICTURE_SIDE)).astype(np.uint16)  # [h, w]
    return [(region.class_id, *inner_point(region)) for region in largest_regions(small, number_of_classes)]


def _outlines(ids: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return a mask [h, w] of pixels whose right or lower neighbour has a different id."""
    outlines = np.zeros(ids.shape, np.bool_)
    outlines[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outlines[:-1] |= ids[:-1] != ids[1:]
    return outlines
