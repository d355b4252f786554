"""NumPy archives: one compressed .npz per image with labels, confidence and the best classes of each patch; confidence maps.

labels      [H, W] uint8, or uint16 above 254 classes: the label ids, as in the index masks
confidence  [H, W] uint8: round(255 * confidence)
top_ids     [K, h, w], dtype of `labels`: the ids of the best K classes of each patch, best first; 0 is the background
top_scores  [K, h, w] float16: their probabilities before refinement

"""

from __future__ import annotations

import io
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.png import encode_picture
from tipsseg.types import ConfidenceArray, label_dtype
from tipsseg.util.files import open_regular

#: Size limits of an unpacked archive in bytes: per pixel (16-bit labels, 8-bit confidence, a margin), and for all patches.
_BYTES_PER_PIXEL = 8
_PATCH_BYTES = 64 << 20


#: numpy parses headers with the `ast` module, which fails at random in threads (Python 3.11: "recursion depth mismatch").
_PARSING = threading.Lock()

#: The errors that numpy and its libraries raise for damaged archives. Determined with randomly damaged files.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, KeyError, EOFError, NotImplementedError),
    *(RuntimeError, OverflowError, MemoryError, TypeError),
)


class Npz(Format):
    name = "npz"
    description = "npz/<image>.npz: labels, confidence, and the best classes of each patch with their scores"
    folder = "npz"
    suffix = ".npz"
    needs = frozenset({"confidence", "top"})

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:

        ids = label_dtype(len(run.classes))
        assert image.confidence is not None
        assert image.top is not None
        # C order, so that equal labels give equal bytes, whatever the memory layout of the input.
        return encode_arrays(
            labels=np.ascontiguousarray(image.labels, ids),
            confidence=np.ascontiguousarray(quantize(image.confidence)),
            top_ids=np.ascontiguousarray(image.top.ids, ids),
            top_scores=np.ascontiguousarray(image.top.scores),
        )


class Confidence(Format):
    name = "confidence"
    description = "confidence images: confidence/<image>.png, with 0..1 scaled to 0..255"
    folder = "confidence"
    needs = frozenset({"confidence"})

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:

        assert image.confidence is not None
        return encode_picture(Image.fromarray(quantize(image.confidence)))


def quantize(confidence: ConfidenceArray) -> NDArray[np.uint8]:
    """Return round(255 * confidence), [H, W] uint8, also for ignored pixels."""

    levels = np.empty(confidence.shape, np.uint8)
    # Convert blocks of rows: converting everything at once would take twice the memory of the confidence.
    step = max((1 << 20) // confidence.shape[1], 1)
    for top in range(0, len(levels), step):
        block = confidence[top : top + step].astype(np.float32)
        levels[top : top + step] = np.rint(block * 255)
    return levels


def encode_arrays(**arrays: NDArray[Any]) -> bytes:
    """Return a compressed NumPy archive of these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for `allow_pickle`
    return buffer.getvalue()


def read_confidence(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the confidence [H, W] in an archive, 0..1. Raise OSError or ValueError if it cannot be read."""
    _, confidence = read_array(path, ("confidence",), _BYTES_PER_PIXEL * size[0] * size[1] + _PATCH_BYTES)
    if confidence.shape != size or confidence.dtype != np.uint8:
        raise ValueError(f"confidence {confidence.dtype} {list(confidence.shape)} does not fit the image")
    return confidence.astype(np.float32) / np.float32(255)


def read_grid(path: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (rows, columns) of patches in the archive of an image of `size`. Raise as `read_confidence` does."""
    _, ids = read_array(path, ("top_ids",), _BYTES_PER_PIXEL * size[0] * size[1] + _PATCH_BYTES)
    if ids.ndim != 3 or 0 in ids.shape:
        raise ValueError(f"top_ids {list(ids.shape)} are not the classes of patches")
    _, rows, columns = ids.shape
    return rows, columns


def read_array(path: Path, names: Sequence[str], most: int) -> tuple[str, NDArray[Any]]:
    """Return the first of these names that an array in a NumPy archive has, and the array.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not an archive with such an array, is damaged, or unpacks to more than `most` bytes.
    """
    with open_regular(path) as file:  # given a path, numpy would leave the file open if it is not an archive
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > most:
                raise ValueError(f"unpacks to {unpacked:,} bytes; the limit is {most:,}")
            file.seek(0)
            with _PARSING, np.load(file, allow_pickle=False) as arrays:
                if (name := next((name for name in names if name in arrays), None)) is None:
                    raise ValueError(f"no array {', '.join(names)}")
                if not isinstance(array := arrays[name], np.ndarray):
                    raise ValueError(f"{name} is not an array")
                return name, array
        except DAMAGE as error:
            raise ValueError(f"not a NumPy archive, or damaged: {str(error) or type(error).__name__}") from error
