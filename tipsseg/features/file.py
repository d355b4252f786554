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
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import FeatureFileError, UsageError
from tipsseg.options import DTYPE_NAMES, FEATURE_DTYPES, MODES, FeatureDtype, Mode, check_stretch
from tipsseg.types import WindowPlan
from tipsseg.util.files import atomic_write, describe_error, open_regular, process_owner
from tipsseg.util.json_values import parse, short, take
from tipsseg.util.printable import pluralize

FloatArray = NDArray[np.float32]

#: Incremented with every change to the layout.
FORMAT_VERSION = 1

_KEY = "tipsseg"

#: Size limits of the header and the file in bytes. The largest supported image stays below them.
_HEADER_LIMIT = 64 << 20
_FILE_LIMIT = 16 << 30

#: Tolerance of the squared length of a unit vector: many times the rounding error of the coarsest dtype.
_TOLERANCE = 0.1

_SHA256 = re.compile("[0-9a-f]{64}")

_NAMES = {"float16": "F16", "float32": "F32", "int8": "I8"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the features of an image, except the image itself.

    Attributes:
        model: Identity of the model, see `spec.model_identity`.
        dtype: Dtype of the vision tower.
        mode: "slide" or "whole".
        short_side: Shorter side of the resized image in pixels.
        labels_version: See `spec.LABELS_VERSION`.
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
    """

    size: tuple[int, int]
    plan: WindowPlan
    dtype: FeatureDtype
    patches: NDArray[np.float16] | FloatArray | NDArray[np.int8]
    scales: FloatArray | None
    class_tokens: NDArray[np.float16] | FloatArray
    origin: Origin | None = None

    def to_float32(self) -> FeatureRecord:
        """Convert the features to float32. Raise ValueError if a vector is not finite or not of unit length."""
        patches: FloatArray = self.patches.astype(np.float32, copy=False)
        if self.scales is not None:
            with np.errstate(invalid="ignore"):  # infinity * 0 gives NaN, which `check_unit_length` refuses
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
    """

    size: tuple[int, int]
    plan: WindowPlan
    dtype: FeatureDtype
    patches: tuple[int, int, int, int]
    tokens: int
    crc32: int
    origin: Origin | None

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
        "origin": None if record.origin is None else {**asdict(record.origin), "recipe": record.origin.recipe.record()},
    }
    data: bytes = save(tensors, {_KEY: json.dumps(facts, sort_keys=True)})
    atomic_write(path, data, process_owner())
    return len(data)


def read_feature_file(path: Path) -> FeatureRecord:
    """Read a feature file. Raise FeatureFileError if it is incomplete, damaged, or in another format."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with open_regular(path) as file:
            header = _read_header(file)
            file.seek(0)
            data = file.read()
        tensors = load(data)
        if _checksum(tensors) != header.crc32:
            raise ValueError("the checksum does not match")
    except OSError as error:
        raise FeatureFileError(path, describe_error(error)) from error
    except (ValueError, TypeError, KeyError, SafetensorError, MemoryError) as error:
        raise _damaged(path, error) from error
    return FeatureRecord(
        header.size,
        header.plan,
        header.dtype,
        tensors["patches"],
        tensors.get("scales"),
        tensors["class_tokens"],
        header.origin,
    )


def read_class_tokens(path: Path) -> NDArray[np.float16] | FloatArray:
    """Read only the class tokens [B, C, D] of a feature file. Raise FeatureFileError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    read_feature_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tokens: NDArray[np.float16] | FloatArray = file.get_tensor("class_tokens")
        check_unit_length(tokens.astype(np.float32))
    except OSError as error:
        raise FeatureFileError(path, describe_error(error)) from error
    except (ValueError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return tokens


def read_feature_header(path: Path) -> FeatureHeader:
    """Read the header of a feature file. Raise FeatureFileError if it is invalid or does not match the file's size."""
    try:
        with open_regular(path) as file:
            return _read_header(file)
    except OSError as error:
        raise FeatureFileError(path, describe_error(error)) from error
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FeatureFileError:
    return FeatureFileError(path, f"damaged feature file: {error or type(error).__name__}", "Encode the image again.")


def _read_header(file: BufferedReader) -> FeatureHeader:
    """Read the header of an open file. Raise ValueError if it is invalid."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise ValueError(f"its header has {length:,} bytes in a file of {size:,}")
    header = parse(file.read(length))
    metadata = take(header, "__metadata__", dict)
    facts = parse(take(metadata, _KEY, str).encode())
    if take(facts, "format", int) != FORMAT_VERSION:
        raise ValueError(f"it has format {facts['format']}; this version of tipsseg reads format {FORMAT_VERSION}")
    parsed = _parse_facts(facts, _shape(header, "patches"), _shape(header, "class_tokens"))
    if size != 8 + length + parsed.bytes or size > _FILE_LIMIT:
        raise ValueError(f"it has {size:,} bytes, but its header requires {8 + length + parsed.bytes:,}")
    expected = {"patches": _NAMES[parsed.dtype], "class_tokens": "F32" if parsed.dtype == "float32" else "F16"}
    expected |= {"scales": "F32"} if parsed.dtype == "int8" else {}
    tensors = {name: take(tensor, "dtype", str) for name, tensor in header.items() if name != "__metadata__"}
    if tensors != expected:
        raise ValueError(f"its tensors are {short(tensors)}, not {short(expected)}")
    if "scales" in header and _shape(header, "scales") != parsed.patches[:3]:
        raise ValueError(
            f"scales of shape {list(_shape(header, 'scales'))} do not match patches of shape {list(parsed.patches)}"
        )
    return parsed


def _parse_facts(facts: Mapping[str, object], patches: tuple[int, ...], tokens: tuple[int, ...]) -> FeatureHeader:
    size = _positive(facts, "height"), _positive(facts, "width")
    plan = _parse_plan(take(facts, "plan", dict))
    dtype = take(facts, "dtype", str)
    if dtype not in FEATURE_DTYPES:
        raise ValueError(f"unknown `dtype` {short(dtype)}")
    windows = max(len(plan.corners), 1)
    if len(patches) != 4 or patches[0] != windows or 0 in patches:
        raise ValueError(f"patches of shape {list(patches)} do not match {pluralize(windows, 'window')}")
    if len(tokens) != 3 or tokens[0] != windows or tokens[2] != patches[3] or not tokens[1]:
        raise ValueError(f"class tokens of shape {list(tokens)} do not match patches of shape {list(patches)}")
    if max(patches[1:3]) > max(plan.size):
        raise ValueError(
            f"patches of shape {list(patches)} do not match {plan.size[0]} x {plan.size[1]} (height x width) pixels"
        )
    origin = None if facts.get("origin") is None else _parse_origin(take(facts, "origin", dict))
    return FeatureHeader(size, plan, dtype, patches, tokens[1], take(facts, "crc32", int), origin)


def _parse_plan(record: Mapping[str, object]) -> WindowPlan:
    height, width = _pair(take(record, "size", list))
    side = take(record, "side", int)
    corners = tuple(_pair(corner) for corner in take(record, "corners", list))
    if height < 1 or width < 1 or (side < 1 if corners else side != 0):
        raise ValueError(f"windows of {side} pixels do not match {height} x {width} (height x width) pixels")
    if any(top < 0 or left < 0 or top + side > height or left + side > width for top, left in corners):
        raise ValueError(f"a window exceeds {height} x {width} (height x width) pixels")
    return WindowPlan((height, width), side, corners)


def _parse_origin(record: Mapping[str, object]) -> Origin:
    sha256 = take(record, "sha256", str)
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"invalid `sha256` {short(sha256)}")
    return Origin(sha256, take(record, "name", str), parse_recipe(take(record, "recipe", dict)))


def parse_recipe(record: Mapping[str, object]) -> Recipe:
    """Parse the JSON values of `Recipe.record`. Raise ValueError if they are invalid."""
    dtype, mode = take(record, "dtype", str), take(record, "mode", str)
    if dtype not in DTYPE_NAMES[1:]:
        raise ValueError(f"unknown `dtype` {short(dtype)}")
    if mode not in MODES:
        raise ValueError(f"unknown `mode` {short(mode)}")
    short_side = _positive(record, "short_side")
    try:
        stretch = check_stretch(record["stretch"]) if "stretch" in record else None
    except UsageError as error:
        raise ValueError(error.message) from error
    return Recipe(take(record, "model", dict), dtype, mode, short_side, take(record, "labels_version", int), stretch)


def _positive(record: Mapping[str, object], key: str) -> int:
    value = take(record, key, int)
    if not 0 < value < 1 << 31:
        raise ValueError(f"invalid `{key}` {value}")
    return value


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) is int for number in value):
        raise ValueError(f"{short(value)} is not a pair of whole numbers")
    return value[0], value[1]


def _shape(header: Mapping[str, object], name: str) -> tuple[int, ...]:
    shape = take(take(header, name, dict), "shape", list)
    if not all(type(length) is int and 0 <= length < 1 << 31 for length in shape) or len(shape) > 4:
        raise ValueError(f"{name} cannot have shape {short(shape)}")
    return tuple(shape)


def _checksum(tensors: Mapping[str, NDArray[np.generic]]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(np.uint8).data, checksum)
    return checksum
