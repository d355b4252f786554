"""Regions get the labels of their pixels: which label, which score, which parts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import UsageError
from tipsseg.regions.components import components
from tipsseg.regions.naming import NamedRegions, Regions, are_rough, as_regions, name_regions, paint_regions

SIZE = (40, 60)
PATCH = 8.0
IGNORE = 255


def picture(**columns: int) -> NDArray[np.uint8]:
    """Labels in upright bands: `to12=3` gives label 3 to the columns from the band before up to 12."""
    labels, left = np.zeros(SIZE, np.uint8), 0
    for name, label in columns.items():
        right = int(name.removeprefix("to"))
        labels[:, left:right] = label
        left = right
    return labels


def name(
    labels: NDArray[np.uint8],
    ids: NDArray[np.int32],
    confidence: float | NDArray[np.float32] = 0.8,
    minimum: float = 0.0,
    only: bool = False,
    margin: float = 0.0,
) -> NamedRegions:
    shares = np.broadcast_to(np.float32(confidence), SIZE).copy()
    least = np.array([minimum] * 5, np.float32)
    return name_regions(
        labels, shares, Regions(ids=ids, only=only, margin=margin), minimum=least, ignore=IGNORE, patch=PATCH
    )


ONE = np.ones(SIZE, np.int32)
HALVES = picture(to30=1, to60=2).astype(np.int32)
LEFT = picture(to30=1, to60=0).astype(np.int32)

#: Labels, regions, whether only regions count -> labels, instances.
CASES = {
    "a rim thinner than a patch joins the region": (picture(to6=2, to60=1), ONE, False, picture(to60=1), ONE),
    "a part as wide as a patch stays": (
        picture(to20=2, to60=1),
        ONE,
        False,
        picture(to20=2, to60=1),
        picture(to20=2, to60=1).astype(np.int32),
    ),
    "touching regions of one class are two instances": (picture(to60=3), HALVES, False, picture(to60=3), HALVES),
    "background names no instance": (picture(to60=0), HALVES, False, picture(to60=0), picture(to60=0).astype(np.int32)),
    "outside, labels stay": (
        picture(to6=2, to45=1, to60=3),
        LEFT,
        False,
        picture(to45=1, to60=3),
        LEFT,
    ),
    "outside, only regions count": (picture(to45=1, to60=3), LEFT, True, picture(to30=1, to60=0), LEFT),
    "equal shares take the lower id": (
        np.tile(np.array([[2, 1], [1, 2]], np.uint8), (20, 30)),
        ONE,
        False,
        picture(to60=1),
        ONE,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_regions_get_labels(case: str) -> None:
    labels, ids, only, wanted, instances = CASES[case]
    named = name(labels, ids, only=only)
    assert named.labels.dtype == np.uint8
    assert (named.labels == wanted).all()
    # Instances are numbered by region, then by label; which number does not matter.
    pairs = {*zip(named.instances.ravel().tolist(), instances.ravel().tolist(), strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert ((named.instances > 0) == (instances > 0)).all()


def test_the_score_of_a_region_is_the_mean_over_all_its_pixels() -> None:
    """Pixels with another label count as 0."""
    named = name(picture(to6=2, to60=1), HALVES, np.where(picture(to45=0, to60=1) > 0, np.float32(0.5), np.float32(1)))
    assert np.allclose(named.confidence[:, :30], 24 / 30)
    assert np.allclose(named.confidence[:, 30:], 0.75)


def test_the_minimum_applies_to_the_score_of_a_region_and_to_pixels_outside() -> None:
    confidence = np.where(picture(to10=0, to40=1, to60=0) > 0, np.float32(0.9), np.float32(0.3))
    named = name(picture(to60=1), LEFT, confidence, minimum=0.6)
    assert (named.labels == picture(to40=1, to60=IGNORE)).all()  # the mean of the region is 0.7
    low = name(picture(to60=1), LEFT, confidence, minimum=0.75)
    assert (low.labels == picture(to30=IGNORE, to40=1, to60=IGNORE)).all()
    assert not low.instances.any()


def test_edges_that_are_off_by_less_than_the_margin_are_those_of_the_labels() -> None:
    labels = picture(to28=1, to60=2)
    assert (name(labels, HALVES).labels == picture(to30=1, to60=2)).all()
    assert (name(labels, HALVES, margin=1).labels == picture(to29=1, to60=2)).all()
    named = name(labels, HALVES, margin=2)
    assert (named.labels == labels).all()
    assert (named.instances == labels).all()  # what region 1 lost is a piece of region 2
    assert np.allclose(named.confidence, name(labels, HALVES).confidence.max(), atol=0.1)


def test_a_margin_leaves_background_and_needs_a_region_of_the_label() -> None:
    labels = picture(to28=1, to32=3, to60=2)
    named = name(labels, HALVES, margin=3)
    assert (named.labels == labels).all()
    assert (named.instances == picture(to28=1, to32=0, to60=2)).all()  # no region has the label 3
    named = name(picture(to45=1, to60=3), LEFT, only=True, margin=3)
    assert (named.labels == picture(to30=1, to60=0)).all()
    low = name(labels, HALVES, np.where(labels == 3, np.float32(0.2), np.float32(0.8)), minimum=0.5, margin=3)
    assert (low.labels == picture(to28=1, to32=IGNORE, to60=2)).all()


def test_regions_are_rough_if_the_labels_change_elsewhere() -> None:
    labels, found = picture(to30=1, to60=2), []
    for edge in (27, 29, 30, 31, 33):
        ids = picture(**{f"to{edge}": 1, "to60": 2}).astype(np.int32)
        found.append(are_rough(labels, ids, name(labels, ids).labels, PATCH, refined=True))
    assert found == [True, False, False, False, True]


def test_regions_with_a_margin_are_checked_like_others() -> None:
    made = as_regions(Regions(ids=HALVES, margin=1.5), SIZE)
    assert (made.margin, (made.ids == HALVES).all()) == (1.5, True)
    with pytest.raises(UsageError, match="but the image has 41 x 60"):
        as_regions(Regions(ids=HALVES), (41, 60))
    for margin in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="must be a distance in pixels"):
            as_regions(Regions(ids=HALVES, margin=margin), SIZE)


def test_instances_divide_the_components() -> None:
    labels = picture(to40=1, to60=2)
    instances = picture(to20=1, to30=2, to40=0, to50=2, to60=0).astype(np.int32)
    regions = components(labels, 2, instances=instances)
    assert [(region.class_id, region.box) for region in regions] == [
        (1, (0, 0, 40, 20)),
        (1, (0, 20, 40, 10)),
        (1, (0, 30, 40, 10)),
        (2, (0, 40, 40, 10)),
        (2, (0, 50, 40, 10)),
    ]
    # An instance may have several parts, and without one, parts that touch are one region.
    apart = picture(to10=7, to50=0, to60=7).astype(np.int32)
    assert [region.area for region in components(picture(to60=1), 1, instances=apart)] == [800, 1600]
    assert [region.area for region in components(picture(to60=1), 1, 801, apart)] == [1600]


def test_smaller_regions_are_on_top() -> None:
    whole, half, part = (np.zeros(SIZE, bool) for _ in range(3))
    whole[:] = half[:, 30:] = part[10:20, 25:35] = True
    ids = as_regions(np.array([part, whole, half]), SIZE).ids
    sam = [part, {"segmentation": whole, "area": 3}, {"segmentation": half}]
    for given in ([part, whole, half], sam, np.array([part, whole, half])[:, None]):
        assert (as_regions(given, SIZE).ids == ids).all()
    assert ids.dtype == np.int32
    assert (ids[10:20, 25:35] == 1).all()
    assert (ids[:10, :30] == 2).all()
    assert (ids[:10, 30:] == 3).all()
    assert not paint_regions([], SIZE).any()


def test_results_of_transformers_are_regions() -> None:
    """Of Mask2Former, whose segments may start at 0, of mask generation, and of the pipeline of image segmentation."""
    left, right = LEFT > 0, LEFT == 0
    right[:, -5:] = False
    segmentation = np.full(SIZE, -1, np.float32)
    segmentation[left], segmentation[right] = 0, 7
    segments = [{"id": 0, "label_id": 3, "score": 0.9}, {"id": 7, "label_id": 3, "score": 0.8}]
    for given in (
        {"segmentation": segmentation, "segments_info": segments},
        {"masks": [left, right], "scores": [0.9, 0.8]},
        {"masks": np.stack([left, right])},
        [{"label": "a", "score": 0.9, "mask": Image.fromarray(mask)} for mask in (left, right)],
    ):
        assert (as_regions(given, SIZE).ids == np.where(left, 1, np.where(right, 2, 0))).all()
    assert not as_regions({"segmentation": segmentation - 7, "segments_info": []}, SIZE).ids.any()


@pytest.mark.parametrize("given", [[{"rle": "x"}], [{"segmentation": {"counts": "x"}}], [3], {"scores": []}])
def test_what_has_no_masks_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match=r"regions .*must be "):
        as_regions(given, SIZE)


@pytest.mark.parametrize(
    "given", [np.zeros((40, 61), int), np.zeros(SIZE, float), np.full(SIZE, -1), np.zeros((2, *SIZE), int)]
)
def test_other_arrays_are_refused(given: object) -> None:
    with pytest.raises(UsageError, match=r"but the image has 40 x 60 \(height x width\) pixels"):
        as_regions(given, SIZE)


def test_a_path_is_no_region() -> None:
    with pytest.raises(UsageError, match="regions must be arrays, not str"):
        as_regions("a.png", SIZE)


def test_slivers_beside_shifted_regions_join_what_they_touch() -> None:
    """A region of class 1 is shifted to the right of its object; beside it are a sure spot and a doubtful one of class 2."""
    ids = picture(to10=0, to40=1, to60=0).astype(np.int32)
    labels = picture(to7=3, to37=1, to60=3).astype(np.uint8)
    confidence = np.full(SIZE, 0.5, np.float16)
    labels[5:7, 50:52] = labels[30:32, 50:52] = 2
    confidence[5:7, 50:52] = 0.95
    named = name_regions(labels, confidence, Regions(ids=ids), minimum=np.zeros(4, np.float32), ignore=255, patch=14.0)
    assert (named.labels[:, 7:40] == 1).all()
    assert (named.instances[:, 7:40] == 1).all()  # the sliver at columns 7 to 9 too
    assert (named.labels[5:7, 50:52] == 2).all()
    assert (named.labels[30:32, 50:52] == 3).all()
