"""Convert Pillow images of any mode to upright 8-bit RGB, at full size or as thumbnails."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tipsseg.errors import InputError

#: Longest side of thumbnails in pixels: enough for any screen, in little memory.
THUMBNAIL_SIDE = 4096

#: Pixels that `pixel_digest` copies at a time.
_DIGESTED = 1 << 20


#: TIFF's tags and values of pixels that Pillow misreads.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2

#: Percentiles of the values of a band that become black and white.
Stretch = tuple[float, float]


def upright_image(image: Image.Image, stretch: Stretch | None = None) -> Image.Image:
    """Convert a Pillow image to mode RGB by the rules of `ImageReader.pixels`, and turn it upright.

    With `stretch`, values become 8 bits by these percentiles of each band, in place of those rules.

    Return the same object if it is RGB and upright. Raise InputError for an image without pixels, and for pixel values that have
    no 8-bit equivalent.
    """
    refuse_misread(image)
    image.load()
    if 0 in image.size:
        raise InputError("the image has no pixels")
    # After `load`: PNG may store EXIF data after the pixels, and Pillow rotates TIFF while loading it.
    orientation = orientation_of(image)
    colours = _to_rgb(image) if stretch is None else _stretched(image, stretch)
    if orientation != 1:
        colours = colours.copy() if colours is image else colours
        # `exif_transpose` rewrites all metadata, and raises if any are damaged, so keep only the orientation.
        colours.info.clear()
        colours.getexif()[ORIENTATION] = orientation
        ImageOps.exif_transpose(colours, in_place=True)
    return colours


def refuse_misread(image: Image.Image) -> None:
    """Raise InputError for a TIFF whose values Pillow reads without their sign, or with black and white exchanged."""
    tags = getattr(image, "tag_v2", {})
    is_signed = _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and 8 in tags.get(_BITS, ())
    if is_signed or (tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode not in ("1", "L")):
        what = "signed values of 8 bits" if is_signed else "values of more than 8 bits of which 0 is white"
        raise InputError(
            f"a TIFF with {what}, which Pillow misreads", "Save it with unsigned values, where 0 is black."
        )


def _stretched(image: Image.Image, stretch: Stretch) -> Image.Image:
    if not image.mode.startswith(("I", "F")) and image.mode != "L":
        image = _to_rgb(image)
    values = np.asarray(image)
    bands = values[..., None] if values.ndim == 2 else values
    parts = [
        to_bytes(bands[..., index], *stretch_limits(bands[..., index], stretch)) for index in range(bands.shape[2])
    ]
    return Image.fromarray(np.stack(parts * (3 // len(parts)), axis=2))


def stretch_limits(values: NDArray[Any], stretch: Stretch) -> tuple[float, float]:
    """Return the values that become black and white: percentiles of the finite `values`."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(finite, stretch) if len(finite) else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values to 0..255, from `low` to `high`; others are clipped, and NaN becomes 0."""
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _grey(_EIGHT_BIT[np.asarray(image)])
    if image.mode == "I":
        # Pillow's mode for 32-bit integers, which some formats and versions also use for 16-bit data.
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise InputError(f"integer pixels from {low} to {high}, outside the supported range 0 to 65535", _RESCALE)
        # Only the range distinguishes 8-bit from 16-bit data here; a 16-bit picture this dark would be black anyway.
        return _grey(values.astype(np.uint8) if high <= 255 else _EIGHT_BIT[values])
    if image.mode == "F":
        floats = np.asarray(image)
        lowest, highest = float(floats.min()), float(floats.max())
        if not (lowest >= 0 and highest <= 255):  # also for NaN
            reason = f"float pixels from {lowest:g} to {highest:g}, outside the supported ranges 0 to 1 and 0 to 255"
            raise InputError(reason, _RESCALE)
        return _grey(np.rint(floats * np.float32(255) if highest <= 1 else floats).astype(np.uint8))
    try:
        return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # damaged palettes and transparency raise only here, as in `ImageReader.catch_errors`
        reason = f"Pillow cannot convert mode {image.mode} to RGB ({type(error).__name__}: {error})"
        raise InputError(reason, "Save the image as RGB.") from error


# v / 257, rounded to nearest: 65535 / 257 = 255. Dropping the low byte would darken the image; clipping would flatten it.
_EIGHT_BIT: NDArray[np.uint8] = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)

_RESCALE = "Save the image with 8 or 16 bits per channel."


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


#: The orientation tag of EXIF and TIFF.
ORIENTATION = 0x0112


#: Pillow's keys for XMP data. It also turns images by them, unlike browsers and other tools.
_XMP = ("xmp", "XML:com.adobe.xmp")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 (upright) if it is missing or damaged."""
    xmp = dict[str, object]()
    try:
        if image.format == "PNG" and "exif" not in image.info:
            image.load()  # as `getexif` does: metadata may follow the pixels
        xmp = {key: image.info.pop(key) for key in _XMP if key in image.info}
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data may raise any exception
        return 1
    finally:
        image.info.update(xmp)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def pixel_digest(upright: Image.Image) -> str:
    """Return a digest of the size and the pixels of an upright RGB image, whatever its file."""
    width, height = upright.size
    digest = sha256(f"{height} {width}\n".encode())
    rows = max(1, _DIGESTED // width)  # a copy of a large image would take as much memory as the image
    for top in range(0, height, rows):
        digest.update(upright.crop((0, top, width, min(top + rows, height))).tobytes())
    return digest.hexdigest()[:32]


def thumbnail_rgb(upright: Image.Image) -> NDArray[np.uint8]:
    """Scale an upright image down to a longest side of THUMBNAIL_SIDE by area averaging, [h, w, 3] uint8."""
    longest = max(upright.size)
    if longest > THUMBNAIL_SIDE:
        width, height = (max(1, round(side * THUMBNAIL_SIDE / longest)) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.BOX)
    return np.array(upright)
