"""Manage Pillow's global state: its formats, its pixel limit, and the warnings of Pillow and libtiff."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from PIL import Image, _imaging

# Formats that Pillow registers but does not decode itself (it calls other programs, or has only a stub for plug-ins), and page
# descriptions, which have no pixels.
_FOREIGN = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})


def image_extensions() -> frozenset[str]:
    """Return the extensions that mark image files in folders, in lower case with the dot."""
    formats = set(image_formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


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
        """Make Pillow accept images of up to `pixels` pixels without a warning. It still refuses more than twice as many."""
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
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
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
