"""Files of features: what is written is read again, and what is not whole is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipsseg.errors import FeatureFileError
from tipsseg.features.file import (
    FeatureRecord,
    Origin,
    Recipe,
    check_unit_length,
    feature_bytes,
    read_feature_file,
    read_feature_header,
    write_feature_file,
)
from tipsseg.options import FEATURE_DTYPES, FeatureDtype
from tipsseg.types import WindowPlan

RECIPE = Recipe({"sha256": {"model.safetensors": "0" * 64}}, "float32", "slide", 56, 1)
ORIGIN = Origin("a" * 64, "sub/ä.png", RECIPE)
PIXELS = "b" * 32


def record_of(
    dtype: FeatureDtype = "float16", windows: int = 2, side: int = 4, dim: int = 8, seed: int = 0, tokens: int = 2
) -> FeatureRecord:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((windows, side, side, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    plan = WindowPlan((56, 56 + 42 * (windows - 1)), 56, tuple((0, 42 * index) for index in range(windows)))
    kind: Any = np.float32 if dtype == "float32" else np.float16
    whole = vectors[:, 0, :tokens].astype(kind)
    if dtype != "int8":
        return FeatureRecord((60, 90), plan, dtype, vectors.astype(kind), None, whole, ORIGIN, PIXELS)
    scales = np.abs(vectors).max(-1) / np.float32(127)
    return FeatureRecord(
        (60, 90), plan, dtype, np.rint(vectors / scales[..., None]).astype(np.int8), scales, whole, ORIGIN, PIXELS
    )


@given(
    dtype=st.sampled_from(FEATURE_DTYPES),
    windows=st.integers(1, 4),
    side=st.integers(2, 5),
    dim=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_feature_file_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, dtype: FeatureDtype, windows: int, side: int, dim: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.safetensors"
    record = record_of(dtype, windows, side, dim, seed)
    written = write_feature_file(path, record)
    first = path.read_bytes()
    assert len(first) == written
    read = read_feature_file(path)
    assert (read.size, read.plan, read.dtype, read.origin) == (record.size, record.plan, dtype, ORIGIN)
    assert read.pixels == read_feature_header(path).pixels == PIXELS
    for name in ("patches", "scales", "class_tokens"):
        one, other = getattr(record, name), getattr(read, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    header = read_feature_header(path)
    assert header.bytes == sum(
        each.nbytes for each in (read.patches, read.scales, read.class_tokens) if each is not None
    )
    assert (header.patches, header.tokens) == (record.patches.shape, record.class_tokens.shape[1])
    write_feature_file(path, read)
    assert path.read_bytes() == first


def test_the_origin_of_features_may_be_left_out(tmp_path: Path) -> None:
    write_feature_file(tmp_path / "a", replace(record_of(), origin=None))
    assert read_feature_file(tmp_path / "a").origin is None


@pytest.mark.parametrize(
    ("dtype", "bytes_"), [("float16", 4 * 1024 * 1026), ("float32", 8 * 1024 * 1026), ("int8", 2 * 1024 * 1032)]
)
def test_bytes_of_the_model_l14_at_640_x_480(dtype: FeatureDtype, bytes_: int) -> None:
    """Two windows of 32 x 32 patches and two class tokens, 1,024 numbers each; int8 has scales, and its class tokens in float16."""
    assert feature_bytes((2, 32, 32, 1024), 2, dtype) == bytes_


def header_changed(change: Callable[[dict[str, object], dict[str, object]], None]) -> Callable[[bytes], bytes]:
    """What changes the header of a file, and what it says of itself."""

    def changed(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        facts = json.loads(header["__metadata__"]["tipsseg"])
        change(header, facts)
        header["__metadata__"]["tipsseg"] = json.dumps(facts)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return changed


def fact(key: str, value: object) -> Callable[[bytes], bytes]:
    return header_changed(lambda header, facts: facts.update({key: value}))


def shape(name: str, value: object) -> Callable[[bytes], bytes]:
    def change(header: dict[str, object], facts: dict[str, object]) -> None:
        tensor = header[name]
        assert isinstance(tensor, dict)
        tensor["shape"] = value

    return header_changed(change)


def windows(*corners: list[object]) -> Callable[[bytes], bytes]:
    return fact("plan", {"size": [56, 98], "side": 56, "corners": corners})


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "its header has 0 bytes in a file of 0"),
    "cut in the numbers": (lambda data: data[:-1], "but its header requires"),
    "a bit": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "the checksum does not match"),
    "a huge header": (
        lambda data: (1 << 60).to_bytes(8, "little") + data[8:],
        "its header has 1,152,921,504,606,846,976",
    ),
    "of nobody": (header_changed(lambda header, facts: facts.clear()), "no `format`"),
    "a later format": (fact("format", 3), "it has format 3; this version of tipsseg reads format 2"),
    "no plan": (fact("plan", None), "no `plan`"),
    "a window outside": (windows([0, 0], [0, 43]), "its windows do not match its patches"),
    "an unknown dtype": (fact("dtype", "int4"), '`dtype` is "int4"'),
    "more patches": (shape("patches", [2, 400, 400, 8]), ""),
}


@pytest.mark.parametrize("reads", [read_feature_file, read_feature_header], ids=["all", "header"])
@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str, reads: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.safetensors"
    write_feature_file(path, record_of())
    path.write_bytes(damage(path.read_bytes()))
    if reads is read_feature_header and "checksum" in reason:
        reads(path)  # which does not read the tensors
        return
    with pytest.raises(FeatureFileError, match=f"damaged feature file: .*{reason}") as caught:
        reads(path)
    assert caught.value.path == path


def test_paths_that_are_not_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a regular file"), ("absent", "no such file"), (".", "directory")):
        with pytest.raises(FeatureFileError, match=reason):
            read_feature_file(tmp_path / name)


@pytest.mark.parametrize("value", [0.0, 2.0, float("nan"), float("inf")])
def test_vectors_that_are_not_of_unit_length_are_told(value: float) -> None:
    vectors = np.zeros((3, 4), np.float32)
    vectors[:, 0] = 1
    check_unit_length(vectors)
    vectors[1, 0] = value
    with pytest.raises(ValueError, match="unit length"):
        check_unit_length(vectors)
