"""Read and write feature files: safetensors files with the features of one image, and how they were computed.

    patches       [B, h, w, D] float16, float32 or int8: one unit vector per patch, for B windows
    scales        [B, h, w] float32, only for int8: a vector is patches * scale
    class_tokens  [B, C, D] float32 if the patches are float32, else float16: C unit vectors per window

The metadata has a single key, `tipsseg`, with JSON: safetensors writes several keys in any order, and equal features must give
equal bytes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import FeatureFileError
from tipsseg.options import FeatureDtype, Mode
from tipsseg.types import WindowPlan
from tipsseg.util.files import atomic_write, describe_error, open_regular
from tipsseg.util.json import parse, take

FloatArray = NDArray[np.float32]

#: Incremented with every change to the layout.
FORMAT_VERSION = 2

_KEY = "tipsseg"

#: Tolerance of the squared length of a unit vector: many times the rounding error of the coarsest dtype.
_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the features of an image, except the image itself.

    Attributes:
        model: Identity of the model (see `spec.model_identity`).
        dtype: Dtype of the vision tower.
        mode: "slide" or "whole".
        short_side: Shorter side of the resized image in pixels.
        labels_version: See `types.LABELS_VERSION`.
        stretch: See `LabelOptions.stretch`.
    """

    model: Mapping[str, object]
    dtype: str
    mode: Mode
    short_side: int
    labels_version: int
    stretch: tuple[float, float] | None = None

    def record(self) -> dict[str, object]:
        """Return the recipe as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of features: the image, and how they were computed.

    Attributes:
        sha256: Hash of the image file, in hex.
        name: Name of the image when it was encoded. Other images may have the same content.
        recipe: Settings of the computation.
    """

    sha256: str
    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRecord:
    """Content of a feature file.

    Attributes:
        size: (height, width) of the upright image in pixels.
        plan: Size and windows of the resized image.
        dtype: Dtype of the patches.
        patches: [B, h, w, D] in that dtype.
        scales: [B, h, w] float32, factors of int8 patches; None for other dtypes.
        class_tokens: [B, C, D] float32 if `dtype` is float32, else float16.
        origin: Image and recipe; None if unknown.
        pixels: Digest of the upright image (see `upright.pixel_digest`); "" if unknown.
    """

    size: tuple[int, int]
    plan: WindowPlan
    dtype: FeatureDtype
    patches: NDArray[np.float16] | FloatArray | NDArray[np.int8]
    scales: FloatArray | None
    class_tokens: NDArray[np.float16] | FloatArray
    origin: Origin | None = None
    pixels: str = ""

    def to_float32(self) -> FeatureRecord:
        """Convert the features to float32. Raise ValueError if a vector is not finite or not of unit length."""
        patches: FloatArray = self.patches.astype(np.float32, copy=False)
        if self.scales is not None:
            with np.errstate(invalid="ignore"):  # infinity * 0 gives NaN, which `check_unit_length` rejects
                patches *= self.scales[..., None]
        class_tokens = self.class_tokens.astype(np.float32, copy=False)
        check_unit_length(patches)
        check_unit_length(class_tokens)
        return replace(self, dtype="float32", patches=patches, scales=None, class_tokens=class_tokens)


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """Header of a feature file.

    Attributes:
        size: (height, width) of the upright image in pixels.
        plan: Size and windows of the resized image.
        dtype: Dtype of the patches.
        patches: Shape [B, h, w, D].
        tokens: C, the number of class tokens per window.
        crc32: Checksum of all tensors.
        origin: Image and recipe; None if unknown.
        pixels: See FeatureRecord.
    """

    size: tuple[int, int]
    plan: WindowPlan
    dtype: FeatureDtype
    patches: tuple[int, int, int, int]
    tokens: int
    crc32: int
    origin: Origin | None
    pixels: str

    @property
    def bytes(self) -> int:
        """Size of all tensors in bytes."""
        return feature_bytes(self.patches, self.tokens, self.dtype)


def feature_bytes(patches: tuple[int, int, int, int], tokens: int, dtype: FeatureDtype) -> int:
    """Return the size in bytes of patches of shape [B, h, w, D], their scales, and `tokens` class tokens per window."""
    windows, dim = patches[0], patches[-1]
    item = {"float16": 2, "float32": 4, "int8": 1}[dtype]
    scales = 4 * prod(patches[:3]) if dtype == "int8" else 0
    return prod(patches) * item + scales + windows * tokens * dim * (4 if dtype == "float32" else 2)


def check_unit_length(vectors: FloatArray) -> None:
    """Raise ValueError if a vector of [..., D] is not finite or not of unit length."""
    squares = np.einsum("...d,...d->...", vectors, vectors)
    if not (np.abs(squares - 1) < _TOLERANCE).all():  # also False for NaN
        raise ValueError("not all vectors are of unit length")


def write_feature_file(path: Path, record: FeatureRecord) -> int:
    """Write a feature file atomically and return its size in bytes. Raise OutputError if it cannot be written."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[np.generic]] = {
        "patches": np.ascontiguousarray(record.patches),
        "class_tokens": np.ascontiguousarray(record.class_tokens),
    }
    if record.scales is not None:
        tensors["scales"] = np.ascontiguousarray(record.scales)
    facts: dict[str, object] = {
        "format": FORMAT_VERSION,
        "height": record.size[0],
        "width": record.size[1],
        "plan": {"size": record.plan.size, "side": record.plan.side, "corners": record.plan.corners},
        "dtype": record.dtype,
        "crc32": _checksum(tensors),
        "pixels": record.pixels,
        "origin": None if record.origin is None else {**asdict(record.origin), "recipe": record.origin.recipe.record()},
    }
    data: bytes = save(tensors, {_KEY: json.dumps(facts, sort_keys=True)})
    atomic_write(path, data)
    return len(data)


def read_feature_file(path: Path) -> FeatureRecord:
    """Read a feature file. Raise FeatureFileError if it is incomplete, damaged, or in another format."""
    from safetensors.numpy import load

    with _tell_damage(path), open_regular(path) as file:
        header = _read_header(file)
        file.seek(0)
        tensors = load(file.read())
        if _checksum(tensors) != header.crc32:
            raise ValueError("the checksum does not match")
    return FeatureRecord(
        header.size,
        header.plan,
        header.dtype,
        tensors["patches"],
        tensors.get("scales"),
        tensors["class_tokens"],
        header.origin,
        header.pixels,
    )


def read_class_tokens(path: Path) -> NDArray[np.float16] | FloatArray:
    """Read only the class tokens [B, C, D] of a feature file. Raise FeatureFileError if it is damaged."""
    from safetensors import safe_open

    read_feature_header(path)
    with _tell_damage(path), safe_open(path, framework="numpy") as file:
        tokens: NDArray[np.float16] | FloatArray = file.get_tensor("class_tokens")
        check_unit_length(tokens.astype(np.float32))
        return tokens


def read_feature_header(path: Path) -> FeatureHeader:
    """Read the header of a feature file. Raise FeatureFileError if it is invalid or does not match the file's size."""
    with _tell_damage(path), open_regular(path) as file:
        return _read_header(file)


@contextmanager
def _tell_damage(path: Path) -> Iterator[None]:
    """Raise FeatureFileError for errors of a file that cannot be read or is damaged."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise FeatureFileError(path, describe_error(error)) from error
    except (ValueError, LookupError, SafetensorError, MemoryError) as error:
        reason = f"damaged feature file: {error or type(error).__name__}"
        raise FeatureFileError(path, reason, "Encode the image again.") from error


def _read_header(file: BufferedReader) -> FeatureHeader:
    """Read the header of an open file. Raise ValueError if it does not match the file's size or its own windows."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        raise ValueError(f"its header has {length:,} bytes in a file of {size:,}")
    header = parse(file.read(length))
    facts = parse(take(take(header, "__metadata__", dict), _KEY, str).encode())
    if take(facts, "format", int) != FORMAT_VERSION:
        raise ValueError(f"it has format {facts['format']}; this version of tipsseg reads format {FORMAT_VERSION}")
    patches = take(take(header, "patches", dict), "shape", tuple[int, int, int, int])
    tokens = take(take(header, "class_tokens", dict), "shape", tuple[int, int, int])
    found = FeatureHeader(
        (take(facts, "height", int), take(facts, "width", int)),
        take(facts, "plan", WindowPlan),
        take(facts, "dtype", FeatureDtype),
        patches,
        tokens[1],
        take(facts, "crc32", int),
        take(facts, "origin", Origin | None),
        take(facts, "pixels", str),
    )
    if size != 8 + length + found.bytes:
        raise ValueError(f"it has {size:,} bytes, but its header requires {8 + length + found.bytes:,}")
    (height, width), side, corners = found.plan.size, found.plan.side, found.plan.corners
    inside = all(0 <= top <= height - side and 0 <= left <= width - side for top, left in corners)
    windows = max(len(corners), 1)
    if not inside or min(found.size) < 1 or (windows, tokens[0], tokens[2]) != (patches[0], patches[0], patches[3]):
        raise ValueError("its windows do not match its patches")
    return found


def _checksum(tensors: Mapping[str, NDArray[np.generic]]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(np.uint8).data, checksum)
    return checksum
