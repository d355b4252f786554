"""Decode image files of any format, as stored or as upright RGB. Every failure is an ImageError."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO, TextIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tipsseg.address import as_address
from tipsseg.errors import ImageError, InputError, Words
from tipsseg.images.access import open_source
from tipsseg.images.decoders import (
    HEIC_HINT,
    PILLOW_LIMIT,
    REPORTED,
    VIDEO_HINT,
    DecodingTimeoutError,
    decode_apart,
    image_formats,
    needs_own_process,
    silence_decoders,
)
from tipsseg.images.remote import check_address
from tipsseg.images.upright import ORIENTATION, Stretch, orientation_of, refuse_misread, thumbnail_rgb, upright_image
from tipsseg.options import MAX_PIXELS
from tipsseg.plugins import ADVICE
from tipsseg.types import Remark
from tipsseg.util.files import describe_error

#: CPU time limit for decoding an image, in seconds. 100 million pixels take a few seconds.
DECODE_SECONDS = 60

#: The largest 12-bit value in a 16-bit channel, scaled to 8 bits.
_TWELVE_BITS = 16

#: TIFF's NewSubfileType tag, and its bits for a reduced copy or a mask of another page.
_SUBFILE_TYPE, _OF_ANOTHER_PAGE = 254, 0b101

#: The formats of files that hold several pictures; others, such as MPO, hold copies of one.
_SEVERAL = frozenset({"TIFF", "GIF", "PNG", "WEBP"})

#: The address of an image (a path, a URL, or a member of an archive such as "shard.tar/a.jpg"), a file open in binary mode, a
#: Pillow image of any mode, or pixels uint8 [H, W, 3] or [3, H, W] RGB, [H, W, 4] or [4, H, W] RGBA, or [H, W] grey.
ImageInput = str | Path | BinaryIO | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Read images, and reject those that are too large. Thread-safe.

    Attributes:
        max_pixels: Limit on the number of pixels of an image.
        stretch: Percentiles of each band that become black and white; None for the rules of `pixels`.
    """

    max_pixels: int = MAX_PIXELS
    stretch: Stretch | None = None

    def pixels(self, path: Path, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Read the pixels of an image file, turned upright.

        All formats and modes that Pillow decodes are supported. Apply the EXIF orientation, read the first frame of an animation,
        drop an alpha channel, and ignore colour profiles. Scale 16-bit values by v / 257, and floats in [0, 1] by 255. Floats and
        32-bit integers up to 255 are not scaled. With `stretch`, scale each band by these percentiles instead (see
        `upright_image`).

        Return [H, W, 3] uint8 RGB, C-contiguous and writable. Raise ImageError if the file cannot be read, or if the image does not
        have the `size` (height, width) of its labels.
        """
        upright = self._decode(path)
        with as_image_error(path):
            pixels = np.array(upright)
        if size is not None and pixels.shape[:2] != size:
            raise ImageError(path, "its size changed while it was labelled", "Run the command again.")
        return pixels

    def thumbnail(self, path: Path) -> NDArray[np.uint8]:
        """Read an image file as a thumbnail (see `thumbnail_rgb`). Raise ImageError if the file cannot be read."""
        upright = self._decode(path)
        with as_image_error(path):
            return thumbnail_rgb(upright)

    def upright(self, image: ImageInput) -> Image.Image:
        """Convert an image file, a Pillow image or pixels (see `ImageInput`) to an upright picture in mode RGB.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong type, shape or dtype, or pixel values without an 8-bit equivalent.
        """
        if isinstance(image, str | Path):
            address = as_address(image)
            check_address(address)
            return self._decode(address)
        if hasattr(image, "read") and not isinstance(image, Image.Image):
            return self._decode_file(cast(BinaryIO, image))
        if isinstance(image, Image.Image):
            return upright_image(image, self.stretch)
        if not hasattr(image, "__array__"):
            accepted = "an address, an open file, a Pillow image or an array"
            raise InputError(
                f"an image must be {accepted}, not {type(image).__name__}", 'For example: label("photo.jpg").'
            )
        image = np.asarray(image)  # arrays of torch and other libraries
        if image.ndim == 3 and image.shape[0] in (3, 4) and image.shape[2] not in (3, 4):
            image = np.ascontiguousarray(image.transpose(1, 2, 0))  # as torch has them
        channels_last = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        if not channels_last or image.dtype != np.uint8 or 0 in image.shape:
            kinds = "uint8, [H, W, 3] or [3, H, W] RGB, [H, W, 4] or [4, H, W] RGBA, or [H, W] grey"
            hint = (
                "Convert floats from 0 to 1 with (image * 255).astype(numpy.uint8), or pass a Pillow image of any mode."
            )
            raise InputError(f"an image array must be {kinds}, got {list(image.shape)} {image.dtype}", hint)
        return upright_image(Image.fromarray(image), self.stretch)

    def size(self, path: Path) -> tuple[int, int]:
        """Return the upright (height, width) of an image file, from its header and its EXIF orientation.

        Decode pixels only for a PNG without EXIF data before them, because PNG may store it after them. Raise ImageError if the
        header is damaged, but not for damaged pixels.
        """
        with self.header(path) as image, self.catch_errors(path):
            height, width = image.size
            if not width or not height:
                raise ImageError(path, "the image has no pixels")
            # For a TIFF, Pillow's size already includes the rotation by its tag.
            tags = getattr(image.picture, "tag_v2", ())
            turned = width != height and orientation_of(image.picture) in {5, 6, 7, 8} and ORIENTATION not in tags
            return (width, height) if turned else (height, width)

    @contextmanager
    def header(self, path: Path) -> Iterator[OpenImage]:
        """Open an image file and read its header. Raise ImageError if it is invalid or the image is too large."""
        try:
            source = open_source(path)
        except IsADirectoryError as error:
            raise ImageError(path, "a folder, not an image file") from error
        except (OSError, ValueError) as error:
            raise ImageError(path, describe_error(error)) from error
        with self._header(path, source) as image:
            yield image

    @contextmanager
    def catch_errors(self, path: Path) -> Iterator[None]:
        """Convert any Pillow exception to ImageError. Wrap only Pillow calls in it."""
        try:
            with PILLOW_LIMIT.at_least(self.max_pixels):
                yield
        except ImageError:
            raise
        except DecodingTimeoutError as error:
            raise _too_slow(path) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            # Pillow checked the size before `refuse_large` could; its message contains the number of pixels. The warning is an
            # exception only in programs that turn warnings into errors.
            pixels = re.search(r"\d+", str(error))
            raise self._too_large(path, f"{int(pixels[0]):,} pixels" if pixels else "the image") from error
        except MemoryError as error:
            raise ImageError(path, "not enough memory to decode it", _LESS_MEMORY) from error
        except Exception as error:
            # On broken data, decoders raise nearly anything: OSError, SyntaxError, ValueError, struct.error, EOFError,
            # IndexError, KeyError, TypeError, zlib.error, ... No file may take down a run, so this catches all of them.
            raise ImageError(path, _describe_fault(error), f"{_DOWNLOAD_AGAIN} Or convert it to PNG.") from error

    def refuse_large(self, path: Path, picture: Image.Image) -> None:
        """Raise ImageError for a picture of more than `max_pixels`."""
        width, height = picture.size
        if width * height > self.max_pixels:
            raise self._too_large(path, f"{height} x {width} (height x width) = {width * height:,} pixels")

    def _too_large(self, path: Path, size: str) -> ImageError:
        return ImageError(
            path,
            f"too large: {size}; the limit is {self.max_pixels:,}",
            Words(
                f"Scale it down, {ADVICE['large image']}, or raise the limit with {{max_pixels}} "
                "(decoding takes 4 to 11 bytes of memory per pixel)."
            ),
        )

    def _decode(self, path: Path) -> Image.Image:
        """Decode an image file to an upright RGB picture, by the rules of `pixels`. Raise ImageError if that fails."""
        with self.header(path) as image:
            return image.upright()

    def _decode_file(self, file: BinaryIO) -> Image.Image:
        """Decode an image from an open file, from its current position."""
        name = getattr(file, "name", None)
        path = Path(name if isinstance(name, str) else "<open file>")
        data = None if isinstance(file, TextIOBase) else file.read()
        if not isinstance(data, bytes | bytearray):
            raise InputError(f"{path}: the file is open as text", "Open it in binary mode: open(path, 'rb').")
        with self._header(path, BytesIO(data)) as image:
            return image.upright()

    @contextmanager
    def _header(self, path: Path, source: FileIO | BytesIO) -> Iterator[OpenImage]:
        # Pillow gets the open file instead of its name: given a name, it memory-maps some formats, and then a file that another
        # program truncates kills the process.
        file = _TimedFile(source, DECODE_SECONDS)
        with file:
            try:
                if not file.seek(0, os.SEEK_END):
                    reason = "empty file (0 bytes)" if isinstance(source, FileIO) else "no bytes left to read"
                    raise ImageError(path, reason, _DOWNLOAD_AGAIN)
                file.seek(0)
            except OSError as error:
                raise ImageError(path, describe_error(error)) from error
            with self.catch_errors(path):
                try:
                    picture = Image.open(file, formats=image_formats())
                except UnidentifiedImageError as error:
                    raise _not_an_image(path, file) from error
            with picture:
                self.refuse_large(path, picture)
                with self.catch_errors(path):
                    pages = _has_pages(picture)
                    if picture.format == "TIFF":
                        orientation_of(
                            picture
                        )  # Pillow turns it while loading it, by the orientation that is read first
                deep = picture.mode.startswith("I;16") or ";16" in str(getattr(picture, "tile", [])[:1])
                yield OpenImage(path, source, picture, self, deep, pages)


@contextmanager
def _as_file(source: FileIO | BytesIO) -> Iterator[Path]:
    """Yield the path of an open file, or of a temporary file with the bytes in memory."""
    if isinstance(source, FileIO):
        yield Path(source.name)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(source.getbuffer())
        file.flush()
        yield Path(file.name)


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An open image file with its header read and its pixels not yet decoded.

    Attributes:
        path: The address.
        source: The open file, or its bytes.
        picture: Pillow's image.
        reader: The reader that opened it.
        deep: True for 16 bits per channel.
        pages: True if the file has more pages or frames than the first, which is the only one read. Reduced copies of it do not
            count.
    """

    path: Path
    source: FileIO | BytesIO
    picture: Image.Image
    reader: ImageReader
    deep: bool = False
    pages: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels from the header, before the image is turned upright."""
        return self.picture.height, self.picture.width

    def remarks(self, upright: Image.Image) -> tuple[Remark, ...]:
        """Return remarks on file content that the upright picture does not show."""
        ranges = cast(tuple[tuple[int, int], ...], upright.getextrema()) if self.deep else ()
        dark = self.deep and all(high <= _TWELVE_BITS for _, high in ranges)
        foreign = self.deep or self.picture.format == "GIF" or self.picture.mode == "CMYK"
        found: dict[Remark, bool] = {"dark": dark, "pages": self.pages, "labelme": foreign}
        return tuple(remark for remark, holds in found.items() if holds)

    def upright(self) -> Image.Image:
        """Decode the pixels to an upright RGB picture (see `upright_image`). Raise ImageError as `decode` does."""
        with as_image_error(self.path):
            refuse_misread(self.picture)  # another process returns no tags
            return upright_image(self.decode(), self.reader.stretch)

    def decode(self) -> Image.Image:
        """Decode the pixels. Raise ImageError if that fails or takes more than DECODE_SECONDS.

        The result stays valid after the file is closed. It is a new object if another process decoded it.
        """
        path, picture, reader = self.path, self.picture, self.reader
        with reader.catch_errors(path):
            if not needs_own_process(picture):
                picture.load()
                reader.refuse_large(path, picture)  # the header may declare too few pixels
                orientation_of(picture)  # makes Pillow read it while the file is open
                return picture
        # Pillow turns TIFF upright while decoding it.
        orientation = 1 if picture.format == "TIFF" else orientation_of(picture)
        try:
            with as_image_error(path), _as_file(self.source) as file:
                decoded = decode_apart(path, file, DECODE_SECONDS, reader.max_pixels)
        except DecodingTimeoutError as error:
            raise _too_slow(path) from error
        except OSError as error:  # the process did not start, or the disk is full
            raise ImageError(path, f"cannot be decoded: {describe_error(error)}") from error
        decoded.getexif()[ORIENTATION] = orientation
        decoded.format = picture.format
        return decoded


def _has_pages(picture: Image.Image) -> bool:
    """Return True for an animation, or if the second image of a TIFF is a page of its own, not a reduced copy or a mask."""
    if picture.format not in _SEVERAL:
        return False
    try:
        animated = bool(getattr(picture, "is_animated", False))
        if not animated or picture.format != "TIFF":
            return animated
        picture.seek(1)
        kind = getattr(picture, "tag_v2", {}).get(_SUBFILE_TYPE, 0)
        return not kind & _OF_ANOTHER_PAGE
    except Exception:  # a damaged second page, which is not read anyway
        return False
    finally:
        picture.seek(0)


@contextmanager
def as_image_error(path: Path) -> Iterator[None]:
    """Convert InputError and MemoryError, raised while processing a decoded image, to ImageError."""
    try:
        yield
    except InputError as error:
        raise ImageError(path, error.message, error.hint) from None
    except MemoryError as error:
        raise ImageError(path, "not enough memory to process it", _LESS_MEMORY) from error


class _TimedFile(BufferedReader):
    """A file whose `read` raises DecodingTimeoutError after its thread has used `seconds` of CPU time.

    This stops most decoders of Pillow, because they read their data block by block. CPU time, unlike the clock, does not run while
    the disk is slow or the machine is busy.
    """

    def __init__(self, raw: FileIO | BytesIO, seconds: float) -> None:
        super().__init__(raw)
        self._until = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._until:
            raise DecodingTimeoutError
        return super().read(size)


# ---- errors ----

_DOWNLOAD_AGAIN = "Download the image again, or remove the file."
_BY_LIBTIFF = "decoder error -2"  # all that Pillow says of a failure of libtiff
_LESS_MEMORY = "Use fewer jobs, or a smaller image."
_DAMAGED = ("broken image file: its header is damaged or truncated", _DOWNLOAD_AGAIN)

_HEIC = rb"(?s)....ftyp(hei|hev|mif|msf)"

# Files often found in place of an image: (first bytes, reason, hint).
_LOOKALIKES = (
    (re.compile(rb"(?s)\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM|....ftypavi[fs]"), *_DAMAGED),
    (
        re.compile(rb"II[*+]\0|MM\0[*+]"),
        "a TIFF that Pillow cannot read: damaged, or of an unsupported kind, such as five bands, 64-bit floats or big-endian "
        "BigTIFF",
        Words(
            f"{ADVICE['unreadable TIFF']}, or convert it to a PNG of 8 bits. If other programs cannot open it either, download "
            "it again."
        ),
    ),
    (
        re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ"),
        "a compressed file, not an image",
        "Unpack it; .tar and .zip files are read.",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the image", "Run `git lfs pull` in its folder."),
    (re.compile(rb"(?i)\s*<(!doctype )?html"), "a web page, not an image", "The download failed: try it again."),
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
    return ImageError(
        path, "not an image in a format that Pillow reads", "Convert the file to PNG or JPEG, or remove the file."
    )


def _too_slow(path: Path) -> ImageError:
    reason = f"decoding takes more than {DECODE_SECONDS} seconds"
    return ImageError(path, reason, "Save the image again as a PNG, or remove the file.")


def _describe_fault(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {describe_error(error)}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated file"
    # The text of a KeyError is only the key, so add the type.
    detail = text if isinstance(error, (OSError, SyntaxError)) and text else f"{type(error).__name__}: {text}"
    other = ", or a compression that Pillow cannot read" if text == _BY_LIBTIFF else ""
    return f"broken image data{other} ({detail})"


# ---- the process of `decode_apart` ----


def decode_for_parent() -> None:
    """Decode an image to a TIFF on stdout, for `decode_apart`: python -m tipsseg.images.decoding PATH SECONDS PIXELS."""
    path, seconds, reader = Path(sys.argv[1]), int(sys.argv[2]), ImageReader(int(sys.argv[3]))
    with suppress(ImportError):  # Windows lacks this module, so only the caller's timeout applies there
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    silence_decoders()
    try:
        with reader.header(path) as image, reader.catch_errors(path):
            image.picture.load()
            plain = image.picture.copy()  # a copy has no format, so its metadata are not written
            plain.info.clear()
            plain.save(sys.stdout.buffer, "TIFF", compression=None, big_tiff=True)
    except ImageError as error:
        sys.stderr.write(json.dumps({"reason": error.reason, "hint": error.hint}))
        sys.exit(REPORTED)


if __name__ == "__main__":
    decode_for_parent()
