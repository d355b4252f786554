"""Read image files of any format: the stored picture, or upright RGB. Every fault is an ImageError.

Each function takes `max_pixels`: images of more pixels are refused. Several threads may call them.
"""

from __future__ import annotations

import io
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tipsseg.errors import ImageError, InputError
from tipsseg.images.apart import DecodingTimeoutError, decode_apart, needs_own_process
from tipsseg.images.pillow import PILLOW_LIMIT, image_formats
from tipsseg.images.skipped import HEIC_HINT, VIDEO_HINT
from tipsseg.images.upright import ORIENTATION, orientation_of, thumbnail_rgb, upright_image
from tipsseg.options import MAX_PIXELS
from tipsseg.types import Remark
from tipsseg.util.files import reason_of

#: Seconds of work that the decoding of an image may take. 100 million pixels take a few.
DECODE_SECONDS = 60

#: What the largest number of 12 bits is in 8 bits of 16.
_TWELVE_BITS = 16

#: A tag of TIFF, and its bits that say that a picture is a smaller copy, or the mask, of another.
_SUBFILE_TYPE, _OF_ANOTHER_PAGE = 254, 0b101

#: An image file, a Pillow image of any mode, or pixels uint8 [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey.
ImageInput = str | Path | Image.Image | NDArray[np.uint8]


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read the pixels of an image file, turned upright.

    Every format and mode that Pillow decodes is read. The EXIF orientation is applied. Of an animation, the first frame is read. An
    alpha channel is dropped and the stored colours are used. Colour profiles are ignored. 16-bit values are scaled by v / 257, and
    floats from [0, 1] by 255. Floats, and 32-bit integers, up to 255 are used as they are.

    Returns [H, W, 3] uint8 RGB, C-contiguous and writable. Raises ImageError.
    """
    upright = decode_upright(path, max_pixels)
    with as_image_error(path):
        return np.array(upright)


def open_thumbnail(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file at the size at which people see it, see `thumbnail_rgb`. Raises as `open_image` does."""
    upright = decode_upright(path, max_pixels)
    with as_image_error(path):
        return thumbnail_rgb(upright)


def decode_upright(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to a picture in mode RGB, turned upright. Raises as `open_image` does."""
    with opened(path, max_pixels) as image, as_image_error(path):
        return upright_image(image.decode())


def decode_stored(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to the picture that is stored: in its own mode, not turned. Raises as `open_image` does."""
    with opened(path, max_pixels) as image:
        return image.decode()


def to_upright(image: ImageInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn a path, a Pillow image of any mode or an array of pixels into an upright picture in mode RGB, see ImageInput.

    Raises:
        ImageError: The file cannot be read.
        InputError: The image has a wrong type, shape or dtype, or no 8-bit meaning.
    """
    if isinstance(image, str) and re.match(r"[a-z]+://", image):
        raise InputError(f"URLs are not supported: {image}", "Download the image first.")
    if isinstance(image, str | Path):
        return decode_upright(Path(image), max_pixels)
    if isinstance(image, Image.Image):
        return upright_image(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image must be a path, a Pillow image or an array, not {type(image).__name__}",
            'For example: label("photo.jpg").',
        )
    grey = image.ndim == 2
    if not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))) or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be uint8, [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey, got {list(image.shape)} {image.dtype}",
            "Pillow images of any mode are converted.",
        )
    return upright_image(Image.fromarray(image))


def upright_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read the (height, width) of an image file once it is upright, from its header and its EXIF orientation.

    Decodes no pixels, but for a PNG without EXIF data in front of them: PNG may have it behind them. Raises ImageError as
    `open_image` does, but not for faults of the pixels.
    """
    with opened(path, max_pixels) as image, faults_of(path, image.max_pixels), as_image_error(path):
        return _upright_size(image.picture)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if not width or not height:
        raise InputError("an image without pixels")
    if width == height:
        return height, width
    # The size in the header of a TIFF is that of the image as its tag turns it.
    turned = orientation_of(image) in {5, 6, 7, 8} and ORIENTATION not in getattr(image, "tag_v2", ())
    return (width, height) if turned else (height, width)


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image file that is open: its header is read, its pixels are not.

    Attributes:
        path: The file.
        picture: Pillow's image.
        max_pixels: Images of more pixels are refused.
        deep: Whether it has 16 bits a channel.
        pages: Whether pages follow the first one, which alone is read; smaller copies of it are no pages.
    """

    path: Path
    picture: Image.Image
    max_pixels: int
    deep: bool = False
    pages: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) that the header states, in pixels, before the image is turned upright."""
        return self.picture.height, self.picture.width

    def remarks(self, upright: Image.Image) -> tuple[Remark, ...]:
        """Tell how the upright picture shows less than is in the file."""
        ranges = cast(tuple[tuple[int, int], ...], upright.getextrema()) if self.deep else ()
        dark = self.deep and all(high <= _TWELVE_BITS for _, high in ranges)
        return (*(("dark",) if dark else ()), *(("pages",) if self.pages else ()))

    def decode(self) -> Image.Image:
        """Decode the pixels, in DECODE_SECONDS at most. Raises ImageError.

        The picture outlives the file. It is another one if it was decoded in a process of its own.
        """
        path, picture = self.path, self.picture
        with faults_of(path, self.max_pixels):
            if not needs_own_process(picture):
                picture.load()
                _refuse_large(path, picture, self.max_pixels)  # a header may say less than there is
                orientation_of(picture)  # which Pillow reads from the file, and keeps
                return picture
        # TIFF is turned upright while it is decoded.
        orientation = 1 if picture.format == "TIFF" else orientation_of(picture)
        try:
            with as_image_error(path):
                decoded = decode_apart(path, DECODE_SECONDS, self.max_pixels)
        except DecodingTimeoutError as error:
            raise _too_slow(path) from error
        except OSError as error:  # no process, or no room for what it makes
            raise ImageError(path, f"cannot be decoded: {reason_of(error)}") from error
        decoded.getexif()[ORIENTATION] = orientation
        decoded.format = picture.format
        return decoded


@contextmanager
def opened(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[OpenImage]:
    """Open an image file and read its header. Raises ImageError, also for an image of more than `max_pixels`."""
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
        with faults_of(path, max_pixels):
            try:
                picture = Image.open(file, formats=image_formats())
            except UnidentifiedImageError as error:
                raise _not_an_image(path, file) from error
        with picture:
            _refuse_large(path, picture, max_pixels)
            with faults_of(path, max_pixels):
                pages = _has_pages(picture)
            yield OpenImage(path, picture, max_pixels, _is_deep(picture), pages)


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode.startswith("I;16") or ";16" in str(getattr(picture, "tile", [])[:1])


def _has_pages(picture: Image.Image) -> bool:
    """Tell whether a page follows the first one of an open image; only the next one is looked at."""
    if picture.format != "TIFF" or not getattr(picture, "is_animated", False):
        return False
    try:
        picture.seek(1)
        kind = getattr(picture, "tag_v2", {}).get(_SUBFILE_TYPE, 0)
        return not kind & _OF_ANOTHER_PAGE
    except Exception:  # a damaged page, which nobody reads
        return False
    finally:
        picture.seek(0)


@contextmanager
def as_image_error(path: Path) -> Iterator[None]:
    """Turn into an ImageError what is wrong with an image that was decoded, or a lack of memory for it."""
    try:
        yield
    except InputError as error:
        raise ImageError(path, error.message, error.hint) from error
    except MemoryError as error:
        raise ImageError(path, "not enough memory for it", "Use fewer jobs, or a smaller image.") from error


@contextmanager
def faults_of(path: Path, max_pixels: int) -> Iterator[None]:
    """Turn into an ImageError whatever Pillow raises while it reads a file; for nothing but calls of Pillow."""
    try:
        with PILLOW_LIMIT.at_least(max_pixels):
            yield
    except ImageError:
        raise
    except DecodingTimeoutError as error:
        raise _too_slow(path) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow looked before the size was known here; its message has the number of pixels. Its warning is raised only in programs
        # that make errors of warnings.
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, f"{int(pixels[0]):,} pixels" if pixels else "the image", max_pixels) from error
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
        if time.thread_time() > self._until:
            raise DecodingTimeoutError
        return super().read(size)


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


def _refuse_large(path: Path, picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        size = f"{height} x {width} (height x width) = {width * height:,} pixels"
        raise _too_large(path, size, max_pixels)


def _too_large(path: Path, size: str, max_pixels: int) -> ImageError:
    return ImageError(
        path,
        f"too large: {size}; the limit is {max_pixels:,}",
        "Scale it down, or allow it with argument `max_pixels` if there is memory for it, 4 to 11 bytes a pixel.",
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
