"""Components and their codes, against straightforward counterparts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_codes import encode_rle
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.regions import components as regions
from tipsseg.regions.components import (
    Region,
    components,
    count_labels,
    encode_regions,
    region_means,
    whole_classes,
)
from tipsseg.types import LabelArray
from tipsseg.vocabulary.palette import colour

# pycocotools' decoder trips over numpy 2's newer protocol; the package does not call it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MAPS = st.one_of(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255])
    ),
    hnp.arrays(
        np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 300, 65535])
    ),
)


def labels_of(text: str, dtype: type[Any] = np.uint8) -> LabelArray:
    return np.array([[int(letter) for letter in row] for row in text.split()], dtype)


def facts(regions: list[Region]) -> list[tuple[int, int, tuple[int, int, int, int]]]:
    return [(region.class_id, region.area, region.box) for region in regions]


def whole(region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    y, x, h, w = region.box
    mask[y : y + h, x : x + w] = region.mask
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", []),
        ("1", [(1, 1, (0, 0, 1, 1))]),
        ("9", []),
        ("10110", [(1, 1, (0, 0, 1, 1)), (1, 2, (0, 2, 1, 2))]),
        ("1 0 1 1", [(1, 1, (0, 0, 1, 1)), (1, 2, (2, 0, 2, 1))]),
        ("111 111", [(1, 6, (0, 0, 2, 3))]),
        ("000 000", []),
        ("100 010 001", [(1, 3, (0, 0, 3, 3))]),  # corners join
        ("2112 1221", [(1, 4, (0, 0, 2, 4)), (2, 4, (0, 0, 2, 4))]),
        (
            "3001 0000 0200 0001",
            [(1, 1, (0, 3, 1, 1)), (1, 1, (3, 3, 1, 1)), (2, 1, (2, 1, 1, 1)), (3, 1, (0, 0, 1, 1))],
        ),
        ("00001 11101 00001 11111", [(1, 8, (0, 0, 4, 5)), (1, 3, (1, 0, 1, 3))]),
        # Boxes with one corner (0, 0): the leftmost pixel of the top row decides.
        ("10100 00100 00100 11100", [(1, 1, (0, 0, 1, 1)), (1, 6, (0, 0, 4, 3))]),
    ],
)
def test_components(text: str, expected: list[object], dtype: type[Any]) -> None:
    assert facts(components(labels_of(text, dtype), 3)) == expected


def test_small_components_are_left_out() -> None:
    labels = labels_of("11010 11000 00022")
    assert [facts(components(labels, 2, least)) for least in (0, 1, 2, 3, 5)] == [
        [(1, 4, (0, 0, 2, 2)), (1, 1, (0, 3, 1, 1)), (2, 2, (2, 3, 1, 2))],
        [(1, 4, (0, 0, 2, 2)), (1, 1, (0, 3, 1, 1)), (2, 2, (2, 3, 1, 2))],
        [(1, 4, (0, 0, 2, 2)), (2, 2, (2, 3, 1, 2))],
        [(1, 4, (0, 0, 2, 2))],
        [],
    ]


@given(MAPS)
def test_components_cover_the_classes_and_keep_apart(labels: LabelArray) -> None:
    number = 254 if labels.dtype == np.uint8 else 300
    rebuilt = np.zeros_like(labels)
    keys = []
    for region in components(labels, number):
        mask = whole(region, labels.shape)
        assert region.mask.shape == region.box[2:]
        assert region.area == mask.sum() > 0
        assert not rebuilt[mask].any()
        assert (labels[mask] == region.class_id).all()
        for side in (region.mask[0], region.mask[-1], region.mask[:, 0], region.mask[:, -1]):
            assert side.any()
        # No pixel of the same class touches it from outside.
        y, x = np.nonzero(mask)
        around = np.zeros_like(mask)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = (y + dy >= 0) & (y + dy < mask.shape[0]) & (x + dx >= 0) & (x + dx < mask.shape[1])
                around[(y + dy)[inside], (x + dx)[inside]] = True
        assert not (labels[around & ~mask] == region.class_id).any()
        rebuilt[mask] = region.class_id
        keys.append((region.class_id, region.box[0], region.box[1], int(region.mask[0].argmax())))
    assert np.array_equal(rebuilt, np.where((labels >= 1) & (labels <= number), labels, 0))
    assert keys == sorted(set(keys))


@given(MAPS)
@settings(max_examples=200)
def test_a_region_is_coded_as_its_whole_mask(labels: LabelArray) -> None:
    for region in components(labels, 300 if labels.dtype == np.uint16 else 254):
        mask = whole(region, labels.shape)
        code = encode_regions([region], labels.shape)[0]
        assert code == encode_rle(mask)
        assert isinstance(code["counts"], str)
        assert code["counts"].isascii()
        assert np.array_equal(coco_mask.decode(code).astype(bool), mask)


def test_pixels_of_components_are_counted() -> None:
    labels = np.random.default_rng(0).integers(0, 1000, (1500, 1400)).astype(np.uint16)
    assert np.array_equal(count_labels(labels), np.bincount(labels.ravel(), minlength=65536))
    assert count_labels(labels_of("012 220")).tolist()[:4] == [2, 1, 3, 0]
    assert np.array_equal(count_labels(labels[::2, ::3]), np.bincount(labels[::2, ::3].ravel(), minlength=65536))


def test_colours_are_distinct_and_neither_black_white_nor_grey() -> None:
    colours = [colour(index) for index in range(1, 300)]
    assert len(set(colours)) == len(colours)
    assert [colour(index) for index in range(1, 300)] == colours
    for rgb in colours:
        assert max(rgb) >= 100
        assert min(rgb) <= 200
        assert max(rgb) - min(rgb) >= 50
    first = cv2.cvtColor(np.array([colours[:30]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 999 * np.eye(30)
    assert distances.min() >= 20  # 2 is just visible


@given(MAPS)
@settings(max_examples=50)
def test_whole_classes_are_their_components_together(labels: LabelArray) -> None:
    regions = whole_classes(labels, 300)
    known = {region.class_id for region in components(labels, 300)}
    assert [region.class_id for region in regions] == sorted(known)
    for region in regions:
        mask = whole(region, labels.shape)
        assert np.array_equal(mask, labels == region.class_id)
        assert region.area == mask.sum()
        assert np.flatnonzero(region.mask.any(0))[[0, -1]].tolist() == [0, region.mask.shape[1] - 1]
        assert np.flatnonzero(region.mask.any(1))[[0, -1]].tolist() == [0, region.mask.shape[0] - 1]
        assert encode_regions([region], labels.shape)[0] == encode_rle(mask)


def test_small_classes_are_left_out() -> None:
    labels = labels_of("1120 0100")
    assert [[region.area for region in whole_classes(labels, 2, least)] for least in (0, 1, 2, 3, 4)] == [
        [3, 1],
        [3, 1],
        [3],
        [3],
        [],
    ]


@pytest.mark.parametrize("piece", [1, 7, 60, 1 << 20])
@pytest.mark.parametrize("find", [components, whole_classes])
def test_images_may_be_looked_at_in_pieces(
    monkeypatch: pytest.MonkeyPatch, piece: int, find: Callable[..., list[Region]]
) -> None:
    labels = np.random.default_rng(4).integers(0, 3, (23, 31), np.uint8).repeat(2, 0)
    values = np.random.default_rng(5).random(labels.shape, np.float32)
    expected = find(labels, 2)
    monkeypatch.setattr(regions, "_PIECE", piece)
    got = find(labels, 2)
    assert facts(got) == facts(expected)
    for one, other in zip(got, expected, strict=True):
        assert (one.mask == other.mask).all()
    means = [values[whole(one, labels.shape)].mean(dtype=np.float64) for one in got]
    assert region_means(got, values) == pytest.approx(means, rel=1e-12)
    assert region_means(got[::-2], values) == pytest.approx(means[::-2], rel=1e-12)
    assert len(region_means([], values)) == 0


@pytest.mark.parametrize(
    "rows", ["10 11 01 10 01 10 11 01 01", "00 11 00 10 01 10 01 01 01 10 01 11 10 11 01 01 10 11 00 00 01 11 10 11"]
)
def test_numbers_of_runs_are_followed_all_the_way_down(rows: str) -> None:
    labels = np.array([[int(each) for each in row] for row in rows.split()], np.uint8)
    assert len(components(labels, 1)) == cv2.connectedComponents(labels, connectivity=8)[0] - 1


def test_a_snake_is_one_component() -> None:
    """Its runs are joined by others only, and by many of them one after the other."""
    labels = np.zeros((41, 200), np.uint8)
    labels[:, ::2] = 1
    labels[0, 1::4] = 1
    labels[-1, 3::4] = 1
    (region,) = components(labels, 1)
    assert region.area == labels.sum()
    assert (region.mask == labels[:, : region.box[3]]).all()
