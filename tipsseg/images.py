"""Image files and Pillow images to pixels: upright RGB, whatever the format; every fault an ImageError."""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.label_options import MAX_PIXELS


@dataclass(slots=True)
class _Limit:
    """Of this process: how many pixels an image may have."""

    pixels: int = MAX_PIXELS


LIMIT = _Limit()

#: The longest side, in pixels, of an image that is shown to people: enough for any screen, and little memory.
SHOWN_SIDE = 4096

_Pixels = TypeVar("_Pixels")

# Formats that Pillow lists and does not decode itself (it calls foreign programs, or has a stub for plug-ins), and page
# descriptions, which have no pixels of their own.
_FOREIGN = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})


def limit_pixels(most: int) -> None:
    """Refuse images of more pixels from here on, in all of this process. Raises UsageError for less than 1."""
    if most < 1:
        raise UsageError(f"--max-pixels {most} is too small; the least is 1")
    LIMIT.pixels = most


def image_extensions() -> frozenset[str]:
    """The lower-case extensions, with their dot, of files that `inputs.find` takes from folders."""
    formats = set(image_formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


def image_formats() -> tuple[str, ...]:
    """The names of the formats that Pillow decodes by itself."""
    # Asked anew each time: programs may register plug-ins, such as one for HEIC, at any time.
    Image.init()
    return tuple(name for name in Image.ID if name not in _FOREIGN)


def open_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, upright: [H, W, 3] uint8 RGB, C-contiguous and writable.

    Takes every format and mode that Pillow decodes. The EXIF orientation is applied; of animations, the first frame is
    taken; an alpha channel is dropped and the stored colours used; colour profiles are ignored. 16-bit values are
    scaled by v / 257, floats from [0, 1] by 255; floats, and 32-bit integers, up to 255 are taken as they are.

    Raises ImageError for whatever is wrong with the file. May be called from several threads.
    """
    return decode_file(path, upright_rgb)


def decode_file(path: Path, decode: Callable[[Image.Image], _Pixels]) -> _Pixels:
    """What `decode` makes of the image in a file, which is closed afterwards.

    Whatever is wrong with the file, and an InputError of `decode`, becomes an ImageError. May be called from several threads.
    """
    _hush_pillow()
    _lift_pillows_limit()
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(path, "a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "not a regular file", "Save the image to a file first.")
        if status.st_size == 0:
            raise ImageError(path, "empty file (0 bytes)", "Fetch the image again, or remove it.")
        # Pillow gets the open file and not its name: by name it maps some formats into memory, and then a file that
        # another program cuts short kills the process.
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(path, reason_of(error)) from error
    with file:
        try:
            return _decode(path, file, decode)
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise _not_an_image(path, file) from error
        except Image.DecompressionBombError as error:
            # Pillow looked before the size was known here; its message has the number of pixels.
            pixels = re.search(r"\d+", str(error))
            raise _too_large(path, f"{int(pixels[0]):,} pixels" if pixels else "the image") from error
        except MemoryError as error:
            raise ImageError(path, "not enough memory to decode it", "Use fewer jobs, or a smaller image.") from error
        except Exception as error:
            # On broken data decoders raise nearly anything: OSError, SyntaxError, ValueError, struct.error, EOFError,
            # IndexError, KeyError, TypeError, zlib.error, ... No file may take down a run, so all are taken here.
            raise ImageError(path, _broken(error), "Fetch the image again, or remove it.") from error


def _decode(path: Path, file: BinaryIO, decode: Callable[[Image.Image], _Pixels]) -> _Pixels:
    with Image.open(file, formats=image_formats()) as image:
        width, height = image.size
        if width * height > LIMIT.pixels:
            raise _too_large(path, f"{height} x {width} (height x width) = {width * height:,} pixels")
        try:
            return decode(image)
        except InputError as error:
            raise ImageError(path, error.message, error.hint) from error


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of what `open_image` makes of a file, from its header and its EXIF orientation.

    Pixels are decoded only of a PNG that may have its orientation behind them. Raises ImageError as `open_image` does, but not for
    faults of the pixels.
    """
    return decode_file(path, _upright_size)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if not width or not height:
        raise InputError("an image without pixels")
    if width == height or (image.format == "PNG" and not _may_be_turned(image)):
        return height, width
    # The size in the header of a TIFF is that of the image as its tag turns it.
    turned = _orientation(image) in {5, 6, 7, 8} and _ORIENTATION not in getattr(image, "tag_v2", ())
    return (width, height) if turned else (height, width)


def _may_be_turned(image: Image.Image) -> bool:
    """Whether there may be an orientation in a PNG. Pillow decodes the pixels to see whether there is one behind them."""
    if image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}:
        return True
    if not isinstance(image, ImageFile.ImageFile) or (file := image.fp) is None:
        return True
    here, behind = file.tell(), False
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            behind = behind or head[4:] == b"IDAT"
            if behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(here)


def upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as `open_image` gives them: upright, [H, W, 3] uint8 RGB. Raises as `upright_image` does."""
    return np.array(upright_image(image))


def open_shown(path: Path) -> NDArray[np.uint8]:
    """An image file as it is shown to people, see `shown_rgb`. Raises as `open_image` does."""
    return decode_file(path, lambda image: shown_rgb(upright_image(image)))


def shown_rgb(upright: Image.Image) -> NDArray[np.uint8]:
    """An upright image in mode RGB at its `shown_size`, [h, w, 3] uint8; each pixel the mean of the area that it stands for."""
    height, width = shown_size((upright.height, upright.width))
    if (width, height) != upright.size:
        upright = upright.resize((width, height), Image.Resampling.BOX)
    return np.array(upright)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) at which an image of `size` is shown: its own, but not longer than SHOWN_SIDE."""
    longest = max(size)
    if longest <= SHOWN_SIDE:
        return size
    height, width = (max(1, round(side * SHOWN_SIDE / longest)) for side in size)
    return height, width


def upright_image(image: Image.Image) -> Image.Image:
    """A Pillow image in mode RGB, as `open_image` understands it, turned upright; the same image where nothing is to be done.

    Raises InputError for an image without pixels and for numbers that have no 8-bit meaning.
    """
    image.load()
    if 0 in image.size:
        raise InputError("an image without pixels")
    # After `load`: PNG may keep the EXIF data behind the pixels, and TIFF turns the image by itself while loading.
    turn = _TURNS.get(_orientation(image))
    colours = _to_rgb(image)
    return colours if turn is None else colours.transpose(turn)


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
    return image.convert("RGB")


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


_ORIENTATION = 0x0112


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF beside sound pixels raises as many kinds as damaged pixels do
        return 1
    return value if isinstance(value, int) else 1


#: What undoes an EXIF orientation; 1 and numbers that are none need nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _lift_pillows_limit() -> None:
    """Let Pillow open what LIMIT allows. It refuses twice its own limit, also where the header does not tell the size yet."""
    least = -(-LIMIT.pixels // 2)
    pillows = Image.MAX_IMAGE_PIXELS
    if pillows is not None and pillows < least:
        Image.MAX_IMAGE_PIXELS = least


_quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_quiet_lock = threading.Lock()


def _hush_pillow() -> None:
    """Silence what Pillow's own modules warn of: large images, odd metadata, doubtful palettes.

    The limit on pixels here is LIMIT, and a file that can be read is a good file. `warnings.catch_warnings` would
    end with the call, but it swaps the filters of the whole process, and threads that overlap in it leave the wrong
    ones behind. A filter that is put in once and stays is safe. It is put in again only where others were put before
    it, as test runners do; a thread that finds it in front needs no lock, and the others wait for it.
    """
    if tuple(warnings.filters[:1]) == (_quiet,):
        return
    with _quiet_lock:
        if tuple(warnings.filters[:1]) != (_quiet,):
            warnings.filterwarnings("ignore", module=r"PIL\.")


# ---- complaints ----

# What often lies where an image should, told by how it begins.
_LOOKALIKES = (
    (
        re.compile(rb"(?s)\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|RIFF....WEBP|BM"),
        "broken image file: its header is damaged or cut off",
        "Fetch the image again, or remove it.",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the image", "Run `git lfs pull` in its folder."),
    (re.compile(rb"(?i)\s*<(!doctype )?html"), "a web page, not an image", "Its download failed; fetch it again."),
    (re.compile(rb"(?i)\s*<(\?xml|svg)"), "XML or SVG text, not a pixel image", "Convert it to PNG first."),
    (re.compile(rb"%PDF|%!PS"), "a PDF or PostScript page, not a pixel image", "Convert it to PNG first."),
    (re.compile(rb"(?s)....ftyp(hei|hev|mif|msf)"), "a HEIC image, which Pillow cannot read", "Convert it to JPEG."),
)


def _not_an_image(path: Path, file: BinaryIO) -> ImageError:
    try:
        file.seek(0)
        head = file.read(64)
    except (OSError, ValueError):
        head = b""
    for pattern, reason, hint in _LOOKALIKES:
        if pattern.match(head):
            return ImageError(path, reason, hint)
    return ImageError(path, "not an image in a format that Pillow reads", "Convert it to PNG or JPEG, or remove it.")


def _too_large(path: Path, size: str) -> ImageError:
    return ImageError(
        path,
        f"too large: {size}; the limit is {LIMIT.pixels:,}",
        "Scale it down, or allow it with --max-pixels if there is memory for it, 4 to 11 bytes a pixel.",
    )


def _broken(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {reason_of(error)}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated file ({text or 'it ends early'})"
    # A KeyError's text alone is a number; its type tells at least what kind of fault it is.
    detail = text if isinstance(error, (OSError, SyntaxError)) and text else f"{type(error).__name__}: {text}"
    return f"broken image data ({detail})"


def reason_of(error: Exception) -> str:
    """What an error of the file system means, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
