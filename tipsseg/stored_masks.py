"""Index masks, other pictures of labels, and archives, read back as they were written."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.check_problem import by
from tipsseg.errors import ImageError, InputError
from tipsseg.images import decode_file, reason_of
from tipsseg.records import LabelArray, label_dtype

#: What is raised for a file that cannot be read, or is not as it was written.
UNREADABLE = (ImageError, OSError, ValueError)

#: What numpy and the libraries below it raise for an archive that is damaged, as damaging one at random shows.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, KeyError, EOFError, NotImplementedError, RuntimeError,
    OverflowError, MemoryError, TypeError,
)  # fmt: skip


def what_is_wrong(error: Exception) -> str:
    """One of UNREADABLE in a few words, without the file."""
    if isinstance(error, ImageError):
        return error.reason
    return reason_of(error) if isinstance(error, OSError) else f"not as tipsseg writes it: {error}"


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of a NumPy archive by their names. Raises what is in UNREADABLE."""
    with path.open("rb") as file:  # by its name, numpy leaves a file open that is no archive
        if not zipfile.is_zipfile(file):
            raise ValueError("no archive, or cut off")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                return [archive[name] for name in names]
        except _DAMAGED as error:
            raise ValueError(str(error) or type(error).__name__) from error


def read_mask(path: Path, size: tuple[int, int], number_of_classes: int, mode: str) -> LabelArray:
    """The ids in an index mask [H, W], of `mode` "L" or "P" up to 254 classes; raises ImageError where it is no such mask."""
    if label_dtype(number_of_classes) is np.uint8:
        return decode_file(path, lambda picture: read_picture(picture, mode, size)).astype(np.uint8)
    return decode_file(path, lambda picture: read_picture(picture, "I;16", size)).astype(np.uint16)


def read_picture(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.generic]:
    """The numbers in a PNG [H, W] or [H, W, 3]; raises InputError for a picture of another kind or size."""
    if picture.format != "PNG" or picture.mode != mode:
        raise InputError(f"a {picture.format} of mode {picture.mode}, not a PNG of mode {mode}")
    width, height = picture.size
    if (height, width) != size:
        raise InputError(f"{by((height, width))}, where the manifest says {by(size)}")
    return np.asarray(picture)
