"""Polygons come back as the pixels that they were made of, whoever reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tipsseg.regions.components import Region, components, whole_classes
from tipsseg.regions.polygons import MIN_IOU, MIN_SIMPLIFIED_IOU, Ring, outline

# pycocotools' decoder trips over numpy 2's newer protocol; the package does not call it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Mask = NDArray[np.bool_]


def mask_of(rows: str) -> Mask:
    return np.array([[character == "1" for character in row] for row in rows.split()])


def whole(mask: Mask) -> Region:
    (region,) = whole_classes(mask.astype(np.uint8), 1)
    return region


def placed(region: Region, size: tuple[int, ...]) -> Mask:
    mask = np.zeros(size, bool)
    y, x, h, w = region.box
    mask[y : y + h, x : x + w] = region.mask
    return mask


def fill(rings: tuple[Ring, ...], size: tuple[int, ...]) -> Mask:
    """What pycocotools takes to be in any of the rings."""
    codes = coco_mask.frPyObjects([ring[:, ::-1].ravel().tolist() for ring in rings], *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(codes)), bool)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def disc(size: int, radius: float, hole: float = -1.0) -> Mask:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(y, x)
    return (distance <= radius) & (distance > hole)


def blobs(seed: int, size: tuple[int, int] = (80, 120)) -> Mask:
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3) > 0.5)


SHAPES: Mapping[str, tuple[Mask, int]] = {  # with the number of parts
    "one pixel": (mask_of("1"), 1),
    "one row": (mask_of("11111"), 1),
    "one column": (mask_of("1 1 1"), 1),
    "two by two": (mask_of("11 11"), 1),
    "touching at a corner": (mask_of("110 110 001"), 1),
    "diagonal": (mask_of("100 010 001"), 1),
    "a ring": (mask_of("111 101 111"), 1),
    "two holes beside each other": (mask_of("11111 10101 11111"), 1),
    "two holes above each other": (mask_of("111 101 111 101 111"), 1),
    "holes that touch at a corner": (mask_of("11111 10111 11011 11111"), 1),
    "a hole that leaves by a corner": (mask_of("1110 1011 1101 1111"), 1),
    "an island in a hole": (mask_of("11111 10001 10101 10001 11111"), 2),
    "two parts": (mask_of("1101 1101"), 2),
    "a checkerboard": (np.indices((6, 7)).sum(0) % 2 == 0, 1),
    "a disc": (disc(40, 18), 1),
    "a donut": (disc(40, 18, 7), 1),
    "a thin donut": (disc(60, 28, 27), 1),
    "a thinner donut": (disc(28, 12, 11), 1),
    "a comb": (mask_of("1111111 1010101 1010101"), 1),
}


def test_a_hole_is_cut_open_to_the_left() -> None:
    (ring,) = outline(whole(mask_of("11111 11111 11011 11111 11111"))).rings
    # Around the outside, at some height to the hole, around it, and back the same way.
    assert len(ring) == 4 + 4 + 3
    bridge = [point for point in ring.tolist() if ring.tolist().count(point) == 2]
    (outer, _), (hole, _) = (bridge[0], bridge[1])
    assert outer == hole
    assert min(x for _, x in bridge) == 0.125
    assert iou(fill((ring,), (5, 5)), mask_of("11111 11111 11011 11111 11111")) == 1.0


@pytest.mark.parametrize(
    "rows",
    ["1111111 1011111 1011011 1011111 1111111", "1111111 1111101 1011001 1011011 1111111"],
    ids=["the left one begins higher", "the right one begins higher"],
)
def test_a_hole_is_cut_open_to_the_hole_on_its_left(rows: str) -> None:
    (ring,) = outline(whole(mask_of(rows))).rings
    assert sum(x == 0.125 for _, x in ring.tolist()) == 2 + 2  # one bridge of two goes as far as that
    assert iou(fill((ring,), (5, 7)), mask_of(rows)) == 1.0


def test_parts_come_from_the_top_and_the_left() -> None:
    rings = outline(whole(mask_of("000011 110000 000000 101011"))).rings
    assert [tuple(ring.min(axis=0)) for ring in rings] == [
        (0.125, 4.125),
        (1.125, 0.125),
        (3.125, 0.125),
        (3.125, 2.125),
        (3.125, 4.125),
    ]


def test_an_outline_is_simplified_as_far_as_it_may_be() -> None:
    """By half a pixel this disc would have 28 corners and an IoU of 0.98, and as it is 52."""
    assert [len(ring) for ring in outline(whole(disc(16, 7.8))).rings] == [36]


@settings(max_examples=150)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)).filter(lambda mask: bool(mask.any()))
)
def test_any_region_survives_a_round_trip(mask: Mask) -> None:
    regions = [whole(mask), *components(mask.astype(np.uint8), 1)]
    for region in regions:
        found = outline(region)
        assert found.iou >= MIN_IOU
        # As its readers see it: at its place in the image.
        assert iou(fill(found.rings, mask.shape), placed(region, mask.shape)) >= MIN_IOU
        for ring in found.rings:
            assert len(ring) >= 3
            assert ring.shape[1] == 2
            assert np.array_equal(ring, np.round(ring, 3))
            assert (ring > 0).all()
            assert (ring < mask.shape).all()


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_smooth_regions_need_few_corners(seed: int) -> None:
    corners = walked = 0
    for region in components(blobs(seed).astype(np.uint8), 1):
        found = outline(region)
        assert found.iou >= MIN_IOU
        corners += sum(map(len, found.rings))
        walk, _ = cv2.findContours(region.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        walked += sum(map(len, walk))
    assert corners < 0.7 * walked


@pytest.mark.parametrize("offset", [(0, 0), (17, 3), (3000, 11)])
def test_the_place_in_the_image_does_not_matter(offset: tuple[int, int]) -> None:
    mask = np.zeros((3100, 150), bool)
    y, x = offset
    mask[y : y + 40, x : x + 40] = disc(40, 18, 7)
    here, there = outline(whole(disc(40, 18, 7))), outline(whole(mask))
    assert there.iou == here.iou
    assert iou(fill(there.rings, mask.shape), mask) >= MIN_IOU


def pillow(rings: tuple[Ring, ...], size: tuple[int, ...]) -> Mask:
    picture = Image.new("1", (size[1], size[0]))
    for ring in rings:
        ImageDraw.Draw(picture).polygon([(x, y) for y, x in ring.tolist()], fill=1)
    return np.asarray(picture)


def opencv_cut(rings: tuple[Ring, ...], size: tuple[int, ...]) -> Mask:
    canvas = np.zeros(size, np.uint8)
    for ring in rings:
        cv2.fillPoly(canvas, [ring[:, ::-1].astype(np.int32)], 1)
    return canvas.astype(bool)


@pytest.mark.parametrize("read", [pillow, opencv_cut])
@pytest.mark.parametrize(
    "mask",
    [*(SHAPES[name][0] for name in ("one pixel", "two by two", "two parts")), disc(80, 38, 17), blobs(2)],
    ids=["one pixel", "two by two", "two parts", "a donut", "blobs"],
)
def test_other_readers_fill_nearly_the_same(
    read: Callable[[tuple[Ring, ...], tuple[int, ...]], Mask], mask: Mask
) -> None:
    assert iou(read(outline(whole(mask)).rings, mask.shape), mask) >= 0.99


def test_simplified_polygons_have_fewer_corners_and_say_what_that_costs() -> None:
    corners, ious = [], []
    for simplify in (None, 0.0, 1.0, 2.0, 4.0):
        found = outline(whole(blobs(1)), simplify)
        assert found.iou == iou(fill(found.rings, (80, 120)), blobs(1))
        corners.append(sum(map(len, found.rings)))
        ious.append(found.iou)
    default, exact, *simplified = corners
    assert exact > default
    assert simplified == sorted(simplified, reverse=True)
    assert simplified[-1] < default / 4
    assert ious[1] >= ious[0] > ious[2] > ious[3] > ious[4] > 0.5


@pytest.mark.parametrize("simplify", [1.0, 3.0, 1000.0])
@pytest.mark.parametrize("mask", [shape for shape, _ in SHAPES.values()], ids=SHAPES)
def test_simplified_polygons_are_polygons(mask: Mask, simplify: float) -> None:
    found = outline(whole(mask), simplify)
    assert len(found.rings) == len(outline(whole(mask)).rings)
    assert all(len(ring) >= 3 for ring in found.rings)
    assert found.iou >= MIN_SIMPLIFIED_IOU
    assert found.iou == iou(fill(found.rings, mask.shape), mask)


def test_no_corner_of_a_simplified_polygon_is_farther_off_than_it_may_be() -> None:
    mask = disc(200, 90)
    (ring,), (exact,) = outline(whole(mask), 4.0).rings, outline(whole(mask), 0.0).rings
    polygon = ring[:, ::-1].astype(np.float32)
    far = [abs(cv2.pointPolygonTest(polygon, (float(x), float(y)), True)) for y, x in exact.tolist()]
    assert 2 < max(far) <= 4


@settings(max_examples=150)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)).filter(lambda mask: bool(mask.any())),
    st.floats(0, 12),
)
def test_simplified_polygons_of_any_region_can_be_written(mask: Mask, simplify: float) -> None:
    """Simplified far, a hole may come to lie across the outline, or outside of it."""
    for region in (whole(mask), *components(mask.astype(np.uint8), 1)):
        found = outline(region, simplify)
        assert found.iou >= MIN_SIMPLIFIED_IOU
        for ring in found.rings:
            assert len(ring) >= 3
            assert np.array_equal(ring, np.round(ring, 3))
            assert (ring > 0).all()
            assert (ring < mask.shape).all()
