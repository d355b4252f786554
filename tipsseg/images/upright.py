"""Convert Pillow images of any mode to upright 8-bit RGB, at full size or as thumbnails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tipsseg.errors import InputError

#: The longest side, in pixels, of an image that is shown to people: enough for any screen, and little memory.
THUMBNAIL_SIDE = 4096


def upright_image(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to mode RGB, as `open_image` understands it, and turn it upright; return it if nothing is to be done.

    Raises InputError for an image without pixels and for numbers that have no 8-bit meaning.
    """
    image.load()
    if 0 in image.size:
        raise InputError("an image without pixels")
    # After `load`: PNG may keep the EXIF data behind the pixels, and TIFF turns the image by itself while loading.
    orientation = orientation_of(image)
    colours = _to_rgb(image)
    return colours if orientation == 1 else _turned(colours.copy() if colours is image else colours, orientation)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    # `exif_transpose` writes all metadata again, and raises where some are damaged. Here it sees the orientation alone.
    image.info.clear()
    image.getexif()[ORIENTATION] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _grey(_EIGHT_BIT[np.asarray(image)])
    if image.mode == "I":
        # Pillow's name for 32-bit integers, which also stands for 16-bit data of some formats and versions.
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise InputError(f"integer pixels from {low} to {high}, where 0 to 65535 is understood", _RESCALE)
        # Nothing but its range tells 8-bit from 16-bit data here; a 16-bit picture this dark would be black anyway.
        return _grey(values.astype(np.uint8) if high <= 255 else _EIGHT_BIT[values])
    if image.mode == "F":
        return _grey(_from_float(np.asarray(image)))
    try:
        return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # as in `decoding.faults_of`: damaged palettes and transparency come to light only here
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"Pillow cannot convert its colours, of the kind {image.mode} ({what})", "Save it as RGB."
        ) from error


# v / 257, rounded to the nearest: 65535 / 257 = 255. Cutting off the low byte, or clipping, would darken or flatten.
_EIGHT_BIT: NDArray[np.uint8] = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)

_RESCALE = "Save it with 8 or 16 bits a channel."


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # false for NaN too
        reason = f"float pixels from {low:g} to {high:g}, where 0 to 1 or 0 to 255 is understood"
        raise InputError(reason, _RESCALE)
    scaled = values * np.float32(255) if high <= 1 else values
    return np.rint(scaled).astype(np.uint8)


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


#: The tag of EXIF, and of TIFF, that says how an image is turned.
ORIENTATION = 0x0112


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1, which is upright, if it is absent or damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF beside sound pixels raises as many kinds as damaged pixels do
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def thumbnail_rgb(upright: Image.Image) -> NDArray[np.uint8]:
    """Scale an upright image to its `thumbnail_size`, [h, w, 3] uint8: each pixel is the mean of the area that it stands for."""
    height, width = thumbnail_size((upright.height, upright.width))
    if (width, height) != upright.size:
        upright = upright.resize((width, height), Image.Resampling.BOX)
    return np.array(upright)


def thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (height, width) at which an image of `size` is shown: its own, but not longer than THUMBNAIL_SIDE."""
    longest = max(size)
    if longest <= THUMBNAIL_SIDE:
        return size
    height, width = (max(1, round(side * THUMBNAIL_SIDE / longest)) for side in size)
    return height, width
