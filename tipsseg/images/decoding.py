"""Image files and Pillow images to pixels: upright RGB, whatever the format; every fault an ImageError."""

from __future__ import annotations

import ctypes
import io
import re
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, _imaging

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.images.apart import DecodingTimeoutError, decode_apart, needs_own_process
from tipsseg.images.skipped import HEIC_HINT, VIDEO_HINT
from tipsseg.images.upright import ORIENTATION, orientation_of, thumbnail_rgb, upright_image, upright_rgb
from tipsseg.options import MAX_PIXELS
from tipsseg.util.files import reason_of


@dataclass(slots=True)
class _Limit:
    """Of this process: how many pixels an image may have."""

    pixels: int = MAX_PIXELS


LIMIT = _Limit()

#: Seconds of work that the decoding of an image may take. 100 million pixels take a few.
DECODE_SECONDS = 60

_Read = TypeVar("_Read")

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
    # Asked anew each time: programs may register plug-ins at any time.
    Image.init()
    _register_heic()
    return tuple(name for name in Image.ID if name not in _FOREIGN)


@cache
def _register_heic() -> None:
    """Let Pillow read HEIC where the package for it is installed, the extra "heic"."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)


def open_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, upright: [H, W, 3] uint8 RGB, C-contiguous and writable.

    Takes every format and mode that Pillow decodes. The EXIF orientation is applied; of animations, the first frame is
    taken; an alpha channel is dropped and the stored colours used; colour profiles are ignored. 16-bit values are
    scaled by v / 257, floats from [0, 1] by 255; floats, and 32-bit integers, up to 255 are taken as they are.

    Raises ImageError for whatever is wrong with the file. May be called from several threads.
    """
    return decode_file(path, upright_rgb)


def decode_file(
    path: Path, read: Callable[[Image.Image], _Read], admit: Callable[[tuple[int, int]], object] | None = None
) -> _Read:
    """What `read` makes of the decoded image in a file.

    admit  is called with the (height, width) before the pixels are decoded, and may wait

    Whatever is wrong with the file, and an InputError of `read`, becomes an ImageError; other errors of `read` pass. Decoding takes
    DECODE_SECONDS at most, see `decode_apart` and `_TimedFile`. May be called from several threads.
    """
    with opened(path) as image:
        if admit is not None:
            admit((image.height, image.width))
        decoded = _decoded(path, image)
        with as_image_error(path):
            return read(decoded)


@contextmanager
def as_image_error(path: Path) -> Iterator[None]:
    """Make an ImageError of what is wrong with an image that was decoded, or of want of memory for it."""
    try:
        yield
    except InputError as error:
        raise ImageError(path, error.message, error.hint) from error
    except MemoryError as error:
        raise ImageError(path, "not enough memory for it", "Use fewer jobs, or a smaller image.") from error


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file, not decoded yet, of a size that is allowed. Raises ImageError."""
    _hush_pillow()
    _hush_libtiff()
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
        file = _TimedFile(path.open("rb", buffering=0), DECODE_SECONDS)
    except (OSError, ValueError) as error:
        raise ImageError(path, reason_of(error)) from error
    with file:
        with faults_of(path):
            try:
                image = Image.open(file, formats=image_formats())
            except UnidentifiedImageError as error:
                raise _not_an_image(path, file) from error
        with image:
            width, height = image.size
            if width * height > LIMIT.pixels:
                raise _too_large(path, f"{height} x {width} (height x width) = {width * height:,} pixels")
            yield image


def _decoded(path: Path, image: Image.Image) -> Image.Image:
    """The image with its pixels; another one where they were decoded in another process. Raises ImageError."""
    with faults_of(path):
        if not needs_own_process(image):
            image.load()
            return image
    # TIFF is turned upright while it is decoded.
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    try:
        with as_image_error(path):
            decoded = decode_apart(path, DECODE_SECONDS, LIMIT.pixels)
    except DecodingTimeoutError as error:
        raise _too_slow(path) from error
    except OSError as error:  # no process, or no room for what it makes
        raise ImageError(path, f"cannot be decoded: {reason_of(error)}") from error
    decoded.getexif()[ORIENTATION] = orientation
    decoded.format = image.format
    return decoded


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Make an ImageError of whatever Pillow raises while it reads a file; for nothing but calls of Pillow."""
    try:
        yield
    except ImageError:
        raise
    except DecodingTimeoutError as error:
        raise _too_slow(path) from error
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


class _TimedFile(io.BufferedReader):
    """A file whose `read` raises DecodingTimeoutError once its thread has worked for so many seconds since it was opened.

    Most decoders of Pillow ask for their data block by block, so this ends them. The time of the thread and not that of the clock:
    slow disks and busy machines take nothing from it.
    """

    def __init__(self, raw: io.FileIO, seconds: float) -> None:
        super().__init__(raw)
        self._until = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        if time.thread_time() > self._until:
            raise DecodingTimeoutError
        return super().read(size)


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of what `open_image` makes of a file, from its header and its EXIF orientation.

    Decodes no pixels, but for a PNG without EXIF data in front of them: PNG may have it behind them. Raises ImageError as
    `open_image` does, but not for faults of the pixels.
    """
    with opened(path) as image, faults_of(path), as_image_error(path):
        return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if not width or not height:
        raise InputError("an image without pixels")
    if width == height:
        return height, width
    # The size in the header of a TIFF is that of the image as its tag turns it.
    turned = orientation_of(image) in {5, 6, 7, 8} and ORIENTATION not in getattr(image, "tag_v2", ())
    return (width, height) if turned else (height, width)


def open_thumbnail(path: Path) -> NDArray[np.uint8]:
    """An image file as it is shown to people, see `thumbnail_rgb`. Raises as `open_image` does."""
    return decode_file(path, lambda image: thumbnail_rgb(upright_image(image)))


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


@cache
def _hush_libtiff() -> None:
    """Silence libtiff, which writes what it thinks of damaged files to stderr, past Python and between our own lines.

    Its handlers are of the whole process: none at all, set once and for good, is safe with threads. What is wrong with a file comes
    back through Pillow all the same. Where Pillow has libtiff within itself, as on Windows, the handlers cannot be reached.
    """
    with suppress(AttributeError, OSError):
        pillow = ctypes.CDLL(_imaging.__file__)  # and what it was linked with
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = pillow[name]
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


# ---- complaints ----

_DAMAGED = ("broken image file: its header is damaged or cut off", "Fetch the image again, or remove it.")

_HEIC = rb"(?s)....ftyp(hei|hev|mif|msf)"

# What often lies where an image should, told by how it begins.
_LOOKALIKES = (
    (
        re.compile(rb"(?s)\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|RIFF....WEBP|BM|....ftypavi[fs]"),
        *_DAMAGED,
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the image", "Run `git lfs pull` in its folder."),
    (re.compile(rb"(?i)\s*<(!doctype )?html"), "a web page, not an image", "Its download failed; fetch it again."),
    (re.compile(rb"(?i)\s*<(\?xml|svg)"), "XML or SVG text, not a pixel image", "Convert it to PNG first."),
    (re.compile(rb"%PDF|%!PS"), "a PDF or PostScript page, not a pixel image", "Convert it to PNG first."),
    (re.compile(_HEIC), "a HEIC image, which Pillow cannot read", f"Convert it to JPEG. Or: {HEIC_HINT}"),
    (re.compile(rb"(?s)....ftyp|RIFF....AVI |\x1aE\xdf\xa3"), "a video, not an image", VIDEO_HINT),
)


def _not_an_image(path: Path, file: BinaryIO) -> ImageError:
    try:
        file.seek(0)
        head = file.read(64)
    except (OSError, ValueError):
        head = b""
    if re.match(_HEIC, head) and "HEIF" in image_formats():
        return ImageError(path, *_DAMAGED)
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


def _too_slow(path: Path) -> ImageError:
    return ImageError(
        path, f"decoding takes more than {DECODE_SECONDS} seconds", "Save it again as a PNG, or remove it."
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
