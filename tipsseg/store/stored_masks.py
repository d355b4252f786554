"""Index masks, other pictures of labels, and archives, read back as they were written."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError, InputError
from tipsseg.formats.problem import by
from tipsseg.images.decoding import as_image_error, decode_stored
from tipsseg.types import LabelArray, label_dtype
from tipsseg.util.files import open_regular, reason_of

#: What is raised for a file that cannot be read, or is not as it was written.
UNREADABLE = (ImageError, OSError, ValueError)

#: What numpy and the libraries below it raise for an archive that is damaged, as damaging one at random shows.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, KeyError, EOFError, NotImplementedError, RuntimeError,
    OverflowError, MemoryError, TypeError,
)  # fmt: skip


#: Bytes of an archive, unpacked: 16-bit labels, 8-bit confidences and a margin for each pixel; and for the patches of small images.
_PER_PIXEL = 8
_AT_LEAST = 64 << 20


def what_is_wrong(error: Exception) -> str:
    """One of UNREADABLE in a few words, without the file."""
    if isinstance(error, ImageError):
        return error.reason
    return reason_of(error) if isinstance(error, OSError) else f"not as tipsseg writes it: {error}"


def read_arrays(path: Path, names: Sequence[str], size: tuple[int, int]) -> list[NDArray[Any]]:
    """Arrays of a NumPy archive of an image of `size` (height, width), by their names. Raises what is in UNREADABLE."""
    with open_regular(path) as file:  # by its name, numpy leaves a file open that is no archive
        if not zipfile.is_zipfile(file):
            raise ValueError("no archive, or cut off")
        _refuse_bombs(file, size)
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                return [archive[name] for name in names]
        except _DAMAGED as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _refuse_bombs(file: BinaryIO, size: tuple[int, int]) -> None:
    """Raise ValueError for an archive that would be far larger, unpacked, than what is written of an image of that size."""
    height, width = size
    limit = _PER_PIXEL * height * width + _AT_LEAST
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
    except _DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if unpacked > limit:
        raise ValueError(f"{unpacked:,} bytes unpacked, where {limit:,} are possible")


def read_mask(path: Path, size: tuple[int, int], number_of_classes: int, mode: str) -> LabelArray:
    """The ids in an index mask [H, W], of `mode` "L" or "P" up to 254 classes; raises ImageError where it is no such mask."""
    if label_dtype(number_of_classes) is np.uint8:
        return read_picture(path, mode, size).astype(np.uint8)
    return read_picture(path, "I;16", size).astype(np.uint16)


def read_picture(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    """The numbers in a PNG file, [H, W] or [H, W, 3]; raises ImageError for a picture of another kind or size."""
    picture = decode_stored(path)
    with as_image_error(path):
        return _checked(picture, mode, size)


def _checked(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    if picture.format != "PNG" or picture.mode != mode:
        raise InputError(f"a {picture.format} of mode {picture.mode}, not a PNG of mode {mode}")
    width, height = picture.size
    if (height, width) != size:
        raise InputError(f"{by((height, width))}, where the manifest says {by(size)}")
    return np.asarray(picture)
