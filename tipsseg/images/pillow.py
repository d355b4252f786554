"""Set what Pillow keeps for the whole process: its formats, its limit on pixels, its warnings and those of libtiff."""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from PIL import Image, _imaging

# Formats that Pillow lists and does not decode itself (it calls foreign programs, or has a stub for plug-ins), and page
# descriptions, which have no pixels of their own.
_FOREIGN = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})


def image_extensions() -> frozenset[str]:
    """Return the file extensions of images, in lower case and with their dot, that are taken from folders."""
    formats = set(image_formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


def image_formats() -> tuple[str, ...]:
    """Return the names of the formats that Pillow decodes by itself."""
    # Asked again each time: programs may register plug-ins at any time.
    Image.init()
    _register_heic()
    return tuple(name for name in Image.ID if name not in _FOREIGN)


@cache
def _register_heic() -> None:
    """Let Pillow read HEIC if the package for it is installed, the extra "heic"."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)


class _PillowLimit:
    """Pillow's own limit on pixels, raised while images are opened or decoded here, and as it was before and after.

    The limit is one variable for all threads. So the first thread that enters keeps what was there, and the last one that leaves
    puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept: int | None = None

    @contextmanager
    def at_least(self, pixels: int) -> Iterator[None]:
        """Let Pillow take, and not warn of, images of so many pixels. It refuses twice as many."""
        with self._lock:
            if not self._inside:
                self._kept = Image.MAX_IMAGE_PIXELS
            self._inside += 1
            now = Image.MAX_IMAGE_PIXELS
            if now is not None and now < pixels:
                Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    Image.MAX_IMAGE_PIXELS = self._kept


PILLOW_LIMIT = _PillowLimit()


def silence_decoders() -> None:
    """Silence what decoders say of files that can be read all the same: Pillow's warnings, and libtiff's lines on stderr.

    This is for a process whose stderr belongs to tipsseg, such as the command. It stays so until the process ends: filters of
    warnings and handlers of libtiff are of the whole process, and swapping them back and forth is not safe with threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """Remove the handlers of libtiff. What is wrong with a file comes back through Pillow all the same.

    Where Pillow has libtiff within itself, as on Windows, the handlers cannot be reached.
    """
    with suppress(AttributeError, OSError):
        pillow = ctypes.CDLL(_imaging.__file__)  # and what it was linked with
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = pillow[name]
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
