"""NumPy archives: one compressed .npz per image, with all that the labels come from.

labels      [H, W] uint8 (uint16 above 254 classes): the label ids, as in the index masks
confidence  [H, W] uint8: round(255 * confidence)
top_ids     [K, h, w] as labels: the ids of the best K classes of each patch, the best first; 0 is the background
top_scores  [K, h, w] float16: their probabilities, before any refinement
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tipsseg.formats.base import Format, ImageLabels, RunFacts, StoredImage
from tipsseg.formats.confidence import quantized
from tipsseg.util.files import open_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import LabelArray, TopClasses

#: An array of archives of earlier versions, which is large, and which nobody reads.
_COSINES = "cosines.npy"

#: Bytes of an archive, unpacked: 16-bit labels, 8-bit confidences and a margin for each pixel; and for the patches of small images.
_PER_PIXEL = 8
_AT_LEAST = 64 << 20


class Npz(Format):
    name = "npz"
    description = "npz/<image>.npz: label ids, confidence, the best classes of each patch with their scores"
    folder = "npz"
    suffix = ".npz"
    needs_confidence = True
    needs_top_classes = True
    labels = "archive"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        import numpy as np

        from tipsseg.types import label_dtype

        assert image.confidence is not None
        assert image.top is not None
        ids = label_dtype(len(run.classes))
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            # In one order whatever they come in, for the same bytes.
            labels=np.ascontiguousarray(image.labels, ids),
            confidence=np.ascontiguousarray(quantized(image.confidence)),
            top_ids=np.ascontiguousarray(image.top.ids, ids),
            top_scores=np.ascontiguousarray(image.top.scores),
        )
        return buffer.getvalue()

    def read_labels(self, image: StoredImage, path: Path) -> LabelArray:
        return _read(path, image).labels

    def read_scores(self, image: StoredImage, path: Path) -> tuple[NDArray[np.float32], TopClasses]:
        import numpy as np

        archive = _read(path, image)
        return archive.confidence.astype(np.float32) / np.float32(255), archive.top

    def try_reading(self, path: Path, image: StoredImage) -> None:
        read_arrays(path, (), image.size)


@dataclass(frozen=True, slots=True, eq=False)
class _Archive:
    labels: LabelArray
    confidence: NDArray[np.uint8]
    top: TopClasses


def _read(path: Path, image: StoredImage) -> _Archive:
    import numpy as np

    from tipsseg.types import TopClasses, label_dtype

    labels, confidence, ids, scores = read_arrays(path, ("labels", "confidence", "top_ids", "top_scores"), image.size)
    wanted = label_dtype(len(image.classes))
    if not labels.shape == confidence.shape == image.size or labels.dtype != wanted or confidence.dtype != np.uint8:
        raise ValueError(f"{labels.dtype} {list(labels.shape)} and {confidence.dtype} {list(confidence.shape)}")
    if ids.ndim != 3 or ids.shape != scores.shape or ids.dtype != wanted or scores.dtype != np.float16:
        raise ValueError(f"{ids.dtype} {list(ids.shape)} and {scores.dtype} {list(scores.shape)}")
    return _Archive(labels, confidence, TopClasses(ids, scores))


def read_arrays(path: Path, names: Sequence[str], size: tuple[int, int]) -> list[NDArray[Any]]:
    """Arrays of a NumPy archive by their names.

    Args:
        path: Of the archive.
        names: Of the arrays.
        size: (height, width) of the image, which bounds what is unpacked.

    Raises:
        OSError: Where the file cannot be read.
        ValueError: Where it is no such archive, or is damaged.
    """
    import zipfile

    import numpy as np

    with open_regular(path) as file:  # by its name, numpy leaves a file open that is no archive
        if not zipfile.is_zipfile(file):
            raise ValueError("no archive, or cut off")
        _refuse_bombs(file, size)
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                return [archive[name] for name in names]
        except _damage() as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _damage() -> tuple[type[Exception], ...]:
    """Return what numpy and the libraries below it raise for a damaged archive, as damaging one at random shows."""
    import tokenize
    import zipfile
    import zlib

    return (
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,
        SyntaxError,
        KeyError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        MemoryError,
        TypeError,
    )


def _refuse_bombs(file: BinaryIO, size: tuple[int, int]) -> None:
    """Raise ValueError for an archive that would be far larger, unpacked, than what is written of an image of that size."""
    import zipfile

    height, width = size
    limit = _PER_PIXEL * height * width + _AT_LEAST
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(each.file_size for each in archive.infolist() if each.filename != _COSINES)
    except _damage() as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if unpacked > limit:
        raise ValueError(f"{unpacked:,} bytes unpacked, where {limit:,} are possible")
