"""Draw an image's files for the page: a picture, a thumbnail with its labels, a map of labels and confidences.

The map is a script, like all data of the page, because a page opened from disk may load scripts but not fetch JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats.png import encode_picture, encode_runs
from tipsseg.regions.drawing import colour_labels
from tipsseg.types import BACKGROUND, LabelArray, LabelClass

#: The longest side, in pixels, of a picture and of a thumbnail.
PICTURE_SIDE = 800
_THUMBNAIL_SIDE = 240

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
    height, width = shown_size(labels.shape, _THUMBNAIL_SIDE)
    small = shown.resize((width, height), Image.Resampling.BOX)
    ids = resample(labels, (height, width))  # [h, w]
    tinted = Image.blend(small, Image.fromarray(colour_labels(ids, classes, _IGNORED)), _TINT)
    tinted.paste(small, mask=Image.fromarray(ids == BACKGROUND))
    tinted.paste(_OUTLINE, mask=Image.fromarray(_outlines(ids)))
    return tinted


def resample(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resample values [H, W] to a new size (h, w): the value of the pixel in which the middle of a new pixel lies."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def jpeg(shown: Image.Image) -> bytes:
    return encode_picture(shown, format="JPEG", quality=82)


def map_script(
    key: str,
    labels: LabelArray,
    confidence: NDArray[np.float32] | None,
    objects: NDArray[np.uint32] | None = None,
    others: LabelArray | None = None,
) -> bytes:
    """Encode labels [H, W], the numbers of objects, other labels, and confidences in 0..1 as a script, at the size of the picture.

    Each is a PNG as base64, because a page opened from disk may not read the pixels of an image file. It has as many bytes per
    pixel as the largest number needs, one below the other: first the lowest byte of all pixels, then the next one. The confidences
    are times 255. None stands for what is unknown.
    """
    size = shown_size(labels.shape, PICTURE_SIDE)
    shares = None
    if confidence is not None:
        shares = np.rint(np.clip(resample(confidence.astype(np.float32), size), 0, 1) * 255).astype(np.uint8)
    # OpenCV resamples no unsigned numbers of 32 bits; there are fewer objects than 2 ** 31.
    numbers = None if objects is None else resample(objects.astype(np.int32), size)
    maps = resample(labels, size), numbers, None if others is None else resample(others, size), shares
    return script("map", key, *(None if values is None else _encode(values) for values in maps))


def _encode(values: NDArray[Any]) -> dict[str, object]:
    """Return the PNG of whole numbers [h, w] and the number of their bytes (see `map_script`)."""
    planes = max((int(values.max()).bit_length() + 7) // 8, 1)
    stacked = np.concatenate([(values >> 8 * plane).astype(np.uint8) for plane in range(planes)])  # [planes * h, w]
    png = base64.b64encode(encode_runs(Image.fromarray(stacked))).decode("ascii")
    return {"planes": planes, "url": f"data:image/png;base64,{png}"}


def _outlines(ids: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return a mask [h, w] of pixels whose right or lower neighbour has a different id."""
    outlines = np.zeros(ids.shape, np.bool_)
    outlines[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outlines[:-1] |= ids[:-1] != ids[1:]
    return outlines


def script(kind: str, *values: object) -> bytes:
    """Return an ASCII script that passes values to the page: `tipsseg.<kind>(...)`.

    `<`, `>`, `&` and line separators are escaped, so that no value can end the script or a comment of the page.
    """
    texts = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) for value in values)
    arguments = ",".join(texts)
    for letter in "<>&":
        arguments = arguments.replace(letter, f"\\u{ord(letter):04x}")
    return f"tipsseg.{kind}({arguments});\n".encode("ascii")
