"""The features of one image in a safetensors file: what the vision tower made of it, of which image, and how it was made.

    patches       [B, h, w, D] float16, float32 or int8: a unit vector for each patch of each window
    scales        [B, h, w] float32, with int8 alone: a vector is patches * scale
    class_tokens  [B, C, D] float32 beside float32, else float16: C unit vectors for each window as a whole

Whatever else a file says stands in its metadata, as JSON under the one key `tipsseg`: safetensors writes several in any order, and
the same features are the same bytes.
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

from tipsseg.errors import FeatureFileError
from tipsseg.options import DTYPE_NAMES, FEATURE_DTYPES, MODES, FeatureDtype, Mode
from tipsseg.types import WindowPlan
from tipsseg.util.files import atomic_write, open_regular, reason_of
from tipsseg.util.json_values import parse, short, take

#: The features of an image as numbers to compute with.
FloatArray = NDArray[np.float32]

#: Raised by one whenever files are laid out otherwise.
FORMAT_VERSION = 1

_KEY = "tipsseg"

#: Bytes of a header at most, and of a whole file; the largest image that is labelled takes less.
_HEADER_LIMIT = 64 << 20
_FILE_LIMIT = 16 << 30

#: How far a vector may be from unit length: many times what the coarsest dtype makes of it.
_NOT_UNIT = 0.1

_SHA256 = re.compile("[0-9a-f]{64}")

_NAMES = {"float16": "F16", "float32": "F32", "int8": "I8"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the features of an image beside the image.

    Attributes:
        model: What tells the model from others, see `spec.model_identity`.
        dtype: What the vision tower computed in.
        mode: How the model saw the image.
        short_side: The shorter side of the image as the model saw it, in pixels.
        labels_version: See `spec.LABELS_VERSION`.
    """

    model: Mapping[str, object]
    dtype: str
    mode: Mode
    short_side: int
    labels_version: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where features come from.

    Attributes:
        sha256: The hash of the image file, in hex.
        name: The name of the image when it was encoded; others may have the same content.
        recipe: How they were made.
    """

    sha256: str
    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRecord:
    """The features of one image as a file holds them.

    Attributes:
        size: (height, width) of the image in pixels, upright.
        plan: How the model saw the image.
        dtype: What the features are kept in.
        patches: [B, h, w, D] in that dtype.
        scales: [B, h, w] float32: what int8 is multiplied by; None for other dtypes.
        class_tokens: [B, C, D] float32 beside float32, else float16.
        origin: Where they come from; None where nobody said.
    """

    size: tuple[int, int]
    plan: WindowPlan
    dtype: FeatureDtype
    patches: NDArray[np.float16] | FloatArray | NDArray[np.int8]
    scales: FloatArray | None
    class_tokens: NDArray[np.float16] | FloatArray
    origin: Origin | None = None

    def in_float32(self) -> FeatureRecord:
        """Return the same features to compute with. Raises ValueError if vectors are not of unit length, or are no numbers."""
        patches: FloatArray = self.patches.astype(np.float32, copy=False)
        if self.scales is not None:
            with np.errstate(invalid="ignore"):  # infinity times 0 is no number, which is found then
                patches *= self.scales[..., None]
        class_tokens = self.class_tokens.astype(np.float32, copy=False)
        check_unit(patches)
        check_unit(class_tokens)
        return replace(self, dtype="float32", patches=patches, scales=None, class_tokens=class_tokens)


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """What a file says of itself before its numbers.

    Attributes:
        size: See FeatureRecord, as the next two and the last.
        plan: How the model saw the image.
        dtype: What the features are kept in.
        patches: The shape [B, h, w, D].
        tokens: C, the class tokens of each window.
        crc32: The checksum of all numbers.
        origin: Where they come from.
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
        """Bytes of all numbers."""
        return feature_bytes(self.patches, self.tokens, self.dtype)


def feature_bytes(patches: tuple[int, int, int, int], tokens: int, dtype: FeatureDtype) -> int:
    """How many bytes the numbers of features take: `patches` [B, h, w, D], and `tokens` class tokens for each of B windows."""
    windows, dim = patches[0], patches[-1]
    each = {"float16": 2, "float32": 4, "int8": 1}[dtype]
    scales = 4 * prod(patches[:3]) if dtype == "int8" else 0
    return prod(patches) * each + scales + windows * tokens * dim * (4 if dtype == "float32" else 2)


def check_unit(vectors: FloatArray) -> None:
    """Raise ValueError where vectors [..., D] are not of unit length, or are no numbers."""
    squares = np.einsum("...d,...d->...", vectors, vectors)
    if not (np.abs(squares - 1) < _NOT_UNIT).all():  # a NaN is not less
        raise ValueError("vectors that are not of unit length")


def write_feature_file(path: Path, record: FeatureRecord) -> int:
    """Write features into a file, which appears whole or not at all; returns its bytes. Raises OutputError."""
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
        "origin": None if record.origin is None else asdict(record.origin),
    }
    data: bytes = save(tensors, {_KEY: json.dumps(facts, sort_keys=True)})
    atomic_write(path, data)
    return len(data)


def read_feature_file(path: Path) -> FeatureRecord:
    """Read features from a file. Raises FeatureFileError for one that is not whole, or not as `write_feature_file` writes it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with open_regular(path) as file:
            header = _read_header(file)
            file.seek(0)
            data = file.read()
        tensors = load(data)
        _check_tensors(tensors, header)
    except OSError as error:
        raise FeatureFileError(path, reason_of(error)) from error
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
    """Read the class tokens [B, C, D] from a file, and no more of it. Raises FeatureFileError."""
    from safetensors import SafetensorError, safe_open

    read_feature_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tokens: NDArray[np.float16] | FloatArray = file.get_tensor("class_tokens")
        check_unit(tokens.astype(np.float32))
    except OSError as error:
        raise FeatureFileError(path, reason_of(error)) from error
    except (ValueError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return tokens


def read_feature_header(path: Path) -> FeatureHeader:
    """Read what a file says of itself, and see that it has as many bytes as that takes. Raises FeatureFileError."""
    try:
        with open_regular(path) as file:
            return _read_header(file)
    except OSError as error:
        raise FeatureFileError(path, reason_of(error)) from error
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FeatureFileError:
    return FeatureFileError(
        path, f"not a whole file of features: {error or type(error).__name__}", "Encode the image again."
    )


def _read_header(file: BufferedReader) -> FeatureHeader:
    """The header of an open file. Raises ValueError."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    header = parse(file.read(length))
    metadata = take(header, "__metadata__", dict)
    facts = parse(take(metadata, _KEY, str).encode())
    if take(facts, "format", int) != FORMAT_VERSION:
        raise ValueError(f"of format {facts['format']}; this version of tipsseg reads format {FORMAT_VERSION}")
    found = _parse_facts(facts, _shape(header, "patches"), _shape(header, "class_tokens"))
    if size != 8 + length + found.bytes or size > _FILE_LIMIT:
        raise ValueError(f"{size:,} bytes, where {8 + length + found.bytes:,} were written")
    wanted = {"patches": _NAMES[found.dtype], "class_tokens": "F32" if found.dtype == "float32" else "F16"}
    wanted |= {"scales": "F32"} if found.dtype == "int8" else {}
    there = {name: take(each, "dtype", str) for name, each in header.items() if name != "__metadata__"}
    if there != wanted:
        raise ValueError(f"the tensors {short(there)} in place of {short(wanted)}")
    if "scales" in header and _shape(header, "scales") != found.patches[:3]:
        raise ValueError(f"scales {list(_shape(header, 'scales'))} of patches {list(found.patches)}")
    return found


def _parse_facts(facts: Mapping[str, object], patches: tuple[int, ...], tokens: tuple[int, ...]) -> FeatureHeader:
    size = _positive(facts, "height"), _positive(facts, "width")
    plan = _parse_plan(take(facts, "plan", dict))
    dtype = take(facts, "dtype", str)
    if dtype not in FEATURE_DTYPES:
        raise ValueError(f"`dtype` is {short(dtype)}")
    windows = max(len(plan.corners), 1)
    if len(patches) != 4 or patches[0] != windows or 0 in patches:
        raise ValueError(f"patches {list(patches)} of {windows} windows")
    if len(tokens) != 3 or tokens[0] != windows or tokens[2] != patches[3] or not tokens[1]:
        raise ValueError(f"class tokens {list(tokens)} of patches {list(patches)}")
    if max(patches[1:3]) > max(plan.size):
        raise ValueError(f"patches {list(patches)} of {plan.size[0]} x {plan.size[1]} (height x width) pixels")
    origin = None if facts.get("origin") is None else _parse_origin(take(facts, "origin", dict))
    return FeatureHeader(size, plan, dtype, patches, tokens[1], take(facts, "crc32", int), origin)


def _parse_plan(record: Mapping[str, object]) -> WindowPlan:
    height, width = _pair(take(record, "size", list))
    side = take(record, "side", int)
    corners = tuple(_pair(each) for each in take(record, "corners", list))
    if height < 1 or width < 1 or (side < 1 if corners else side != 0):
        raise ValueError(f"windows of {side} pixels in {height} x {width}")
    if any(top < 0 or left < 0 or top + side > height or left + side > width for top, left in corners):
        raise ValueError(f"windows outside of {height} x {width} (height x width) pixels")
    return WindowPlan((height, width), side, corners)


def _parse_origin(record: Mapping[str, object]) -> Origin:
    sha256 = take(record, "sha256", str)
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"`sha256` is {short(sha256)}")
    return Origin(sha256, take(record, "name", str), parse_recipe(take(record, "recipe", dict)))


def parse_recipe(record: Mapping[str, object]) -> Recipe:
    """The recipe of a JSON object, as `asdict` gives one. Raises ValueError."""
    dtype, mode = take(record, "dtype", str), take(record, "mode", str)
    if dtype not in DTYPE_NAMES[1:]:
        raise ValueError(f"`dtype` is {short(dtype)}")
    if mode not in MODES:
        raise ValueError(f"`mode` is {short(mode)}")
    short_side = _positive(record, "short_side")
    return Recipe(take(record, "model", dict), dtype, mode, short_side, take(record, "labels_version", int))


def _positive(record: Mapping[str, object], key: str) -> int:
    value = take(record, key, int)
    if not 0 < value < 1 << 31:
        raise ValueError(f"`{key}` is {value}")
    return value


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(each) is int for each in value):
        raise ValueError(f"{short(value)} is no pair of numbers")
    return value[0], value[1]


def _shape(header: Mapping[str, object], name: str) -> tuple[int, ...]:
    shape = take(take(header, name, dict), "shape", list)
    if not all(type(each) is int and 0 <= each < 1 << 31 for each in shape) or len(shape) > 4:
        raise ValueError(f"{name} of shape {short(shape)}")
    return tuple(shape)


def _check_tensors(tensors: Mapping[str, NDArray[np.generic]], header: FeatureHeader) -> None:
    """Raise ValueError where tensors are not as the header says."""
    if _checksum(tensors) != header.crc32:
        raise ValueError("the numbers are not those that were written")


def _checksum(tensors: Mapping[str, NDArray[np.generic]]) -> int:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].reshape(-1).view(np.uint8).data, found)
    return found
