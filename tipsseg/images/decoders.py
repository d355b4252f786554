"""Know the decoders: their formats, Pillow's global limit and warnings, and a process for those that cannot be interrupted."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from PIL import Image, _imaging

from tipsseg.errors import ImageError, Words
from tipsseg.images.access import VIDEOS
from tipsseg.util.text import pluralize

# Formats that Pillow registers but does not decode itself (it calls other programs, or has only a stub for plug-ins), and page
# descriptions, which have no pixels.
_FOREIGN = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})


def image_extensions() -> frozenset[str]:
    """Return the extensions that mark image files in folders, in lower case with the dot."""
    formats = set(image_formats())
    found = {extension for extension, name in Image.registered_extensions().items() if name in formats}
    return frozenset(found - {".fit"})  # a FITS image, but here what tipsseg fit writes


def image_formats() -> tuple[str, ...]:
    """Return the names of the formats that Pillow itself decodes."""
    # Not cached: programs may register plug-ins at any time.
    Image.init()
    _register_heic()
    return tuple(name for name in Image.ID if name not in _FOREIGN)


@cache
def _register_heic() -> None:
    """Add HEIC to Pillow's formats if the extra "heic" is installed."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)


class _PillowLimit:
    """Pillow's pixel limit, raised while this package opens or decodes images.

    All threads share the limit. So the first thread that enters saves the original value, and the last one that leaves restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._original: int | None = None

    @contextmanager
    def at_least(self, pixels: int) -> Iterator[None]:
        """Make Pillow accept images of up to `pixels` pixels without a warning. It still rejects more than twice as many."""
        with self._lock:
            if not self._inside:
                self._original = Image.MAX_IMAGE_PIXELS
            self._inside += 1
            current = Image.MAX_IMAGE_PIXELS
            if current is not None and current < pixels:
                Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    Image.MAX_IMAGE_PIXELS = self._original


PILLOW_LIMIT = _PillowLimit()


def silence_decoders() -> None:
    """Silence the warnings of Pillow, and the lines of libtiff and OpenCV on stderr, about files that are readable
    or whose fault is reported.

    Only for processes whose stderr belongs to tipsseg, like the command. This cannot be undone: warning filters and libtiff's
    handlers are global to the process, and switching them is not thread-safe.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when OpenCV opens a video
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # read when OpenCV is imported
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """Remove libtiff's message handlers. Pillow still raises for faulty files.

    If libtiff is statically linked into Pillow, as on Windows, its handlers are out of reach.
    """
    with suppress(AttributeError, OSError):
        pillow = ctypes.CDLL(_imaging.__file__)  # exposes the libraries that it was linked with
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = pillow[name]
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


# ---- files that are no images ----


#: Maximum number of kinds that a message lists.
_LISTED = 8

#: Kind for pipes, sockets and devices.
_OTHER = "special file"

_HEIC = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})

HEIC_HINT = ".heic: install HEIC support: pip install 'tipsseg[heic]'"
VIDEO_HINT = Words("Video: set {every}, for example to 1s for one frame per second.")


class Skipped:
    """Counts of skipped files by kind: the extension, in lower case."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, name: str, *, file: bool) -> None:
        self._kinds[PurePath(name).suffix.lower() if file else _OTHER] += 1

    def __len__(self) -> int:
        return self._kinds.total()

    def __str__(self) -> str:
        """Return the counts as text, highest first, for example "3 .heic, 1 .mp4"."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{number} {kind or 'without an extension'}" for kind, number in kinds[:_LISTED]]
        if kinds[_LISTED:]:
            rest = sum(number for _, number in kinds[_LISTED:])
            parts.append(f"{rest} of {pluralize(len(kinds) - _LISTED, 'other kind')}")
        return ", ".join(parts)

    @property
    def hints(self) -> tuple[str, ...]:
        hints = ((_HEIC, HEIC_HINT), (VIDEOS, VIDEO_HINT))
        return tuple(hint for kinds, hint in hints if kinds & self._kinds.keys())


# ---- decoding in another process ----


#: Formats whose decoding time is not bounded by the number of pixels.
_UNBOUNDED = frozenset({"JPEG2000", "ICNS"})  # ICNS may contain JPEG 2000

#: Formats that are decoded in one call, in a time proportional to the number of pixels.
_ONE_CALL = frozenset({"WEBP", "AVIF", "HEIF", "TIFF"})

#: Up to this many pixels, those formats take at most about a second, so they need no process, which takes 0.25 s to start.
_FEW = 16_000_000

#: Timeout as a multiple of the CPU time limit, to allow for slow disks and busy machines.
_WAIT = 10

#: Exit code of a process that reports an image fault as JSON on the last line of stderr.
REPORTED = 3

# -P: do not import modules from the current folder.
_COMMAND = (sys.executable, "-P", "-m", "tipsseg.images.decoding")

_TILE_SIDES = (322, 323)  # TIFF tags


class DecodingTimeoutError(Exception):
    """An image took too long to decode."""


def needs_own_process(image: Image.Image) -> bool:
    """Return True if `decode_apart` must decode this open image. A damaged file may raise any exception."""
    if image.format in _UNBOUNDED:
        return True
    return image.format in _ONE_CALL and _decoded_pixels(image) > _FEW


def _decoded_pixels(image: Image.Image) -> int:
    """Count the pixels that the decoder produces. For TIFF, these are whole tiles, which may reach beyond the image."""
    width, height = image.size
    if image.format != "TIFF":
        return width * height
    if not any(tile[0] == "libtiff" for tile in getattr(image, "tile", ())):
        return 0  # not compressed, so read block by block
    tags = getattr(image, "tag_v2", {})
    tile_width, tile_height = (int(tags.get(tag, 1)) for tag in _TILE_SIDES)
    return -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height


def decode_apart(path: Path, file: Path, seconds: int, pixels: int) -> Image.Image:
    """Decode an image in another process, without its metadata.

    Args:
        path: The address of the image, for errors.
        file: Its file.
        seconds: Limit on the CPU time.
        pixels: Limit on the number of pixels.

    Raises:
        ImageError: The file is broken or too large.
        DecodingTimeoutError: Decoding takes longer than the limit.
    """
    command = [*_COMMAND, os.fspath(file), str(seconds), str(pixels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with tempfile.TemporaryFile() as result:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": result, "stderr": subprocess.PIPE}
        try:
            done = subprocess.run(command, **streams, timeout=seconds * _WAIT, env=environment, check=False)
        except subprocess.TimeoutExpired as error:
            raise DecodingTimeoutError from error
        if done.returncode:
            raise _failure(path, done.returncode, done.stderr)
        result.seek(0)
        with PILLOW_LIMIT.at_least(pixels):
            image = Image.open(result, formats=("TIFF",))
            image.load()
        image.getexif()  # Pillow reads it lazily, and the file is about to close
    return image


def _failure(path: Path, code: int, stderr: bytes) -> Exception:
    """Return the error for a decoder process that exited with `code` and wrote `stderr`."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return DecodingTimeoutError()
    lines = stderr.splitlines()
    if code == REPORTED and lines:
        report = json.loads(lines[-1])
        return ImageError(path, report["reason"], report["hint"])
    failure = f"signal {-code}" if code < 0 or not lines else lines[-1].decode(errors="replace")
    return ImageError(path, f"its decoder failed ({failure})", "Download the image again, or remove the file.")
