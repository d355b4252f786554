"""Objects of rasters, joined across blocks, are those of all labels at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.features import shapes

from tipsseg.options import Instances
from tipsseg.options.records import FileOptions
from tipsseg.plugins.geo.joining import ObjectJoiner, Rings, TracedObject
from tipsseg.regions.objects import LabelledObject, ancestors, number_pixels, object_regions
from tipsseg.types import BlockPlace, LabelArray, LabelClass

#: A class, its area, and its polygons, each the outer ring and the set of its holes.
Found = tuple[int, int, frozenset[tuple[bytes, frozenset[bytes]]]]


def joined(
    labels: LabelArray, classes: Sequence[LabelClass], side: int, instances: Instances = "component"
) -> Iterator[tuple[int, TracedObject]]:
    """The objects of labels in blocks of this side, each with the row of blocks that it leaves with. Scores grow to the right."""
    height, width = labels.shape
    joiner = ObjectJoiner((height, width), classes, by_class=instances == "class")
    for top in range(0, height, side):
        for left in range(0, width, side):
            block = labels[top : top + side, left : left + side].copy()
            regions = object_regions(block, classes, FileOptions(instances=instances))
            objects = [LabelledObject(each, left / 10) for each in regions]
            for each in joiner.add(BlockPlace(0, top, left, *block.shape), objects):
                yield top // side, each


def at_once(labels: LabelArray, classes: Sequence[LabelClass], instances: Instances) -> Iterator[Found]:
    regions = object_regions(labels, classes, FileOptions(instances=instances))
    depths = [len(chain) for chain in ancestors(classes)]
    for depth in set(depths):
        own = [each for each in regions if depths[each.class_id - 1] == depth]
        numbers = number_pixels(enumerate(own, start=1), labels.shape).astype(np.int32)
        polygons: dict[int, list[Rings]] = {}
        for geometry, number in shapes(numbers, mask=numbers > 0, connectivity=4):
            rings = [np.array(ring, np.int32) for ring in geometry["coordinates"]]
            polygons.setdefault(int(number), []).append(rings)
        for number, each in enumerate(own, start=1):
            yield each.class_id, each.area, frozen(polygons[number])


def frozen(polygons: Sequence[Rings]) -> frozenset[tuple[bytes, frozenset[bytes]]]:
    return frozenset((outer.tobytes(), frozenset(hole.tobytes() for hole in holes)) for outer, *holes in polygons)


def classes_of(*wholes: int) -> tuple[LabelClass, ...]:
    return tuple(
        LabelClass(id=number, name=f"c{number}", colour=(0, 0, 0), part_of=whole)
        for number, whole in enumerate(wholes, start=1)
    )


@pytest.mark.parametrize("wholes", [(0, 0, 0), (0, 1, 0), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("instances", ["component", "class"])
def test_joined_objects_are_those_of_all_labels_at_once(instances: Instances, wholes: tuple[int, ...]) -> None:
    random, classes = np.random.default_rng(0), classes_of(*wholes)
    for turn in range(60):
        size, side = random.integers(1, 24, 2), int(random.integers(1, 8))
        sparse = random.random(size) < random.random()  # holes, and pieces that touch at corners
        labels = (random.integers(0, 4, size) if turn % 2 else sparse * random.integers(1, 4)).astype(np.uint8)
        objects = (each for _, each in joined(labels, classes, side, instances))
        found = Counter((each.class_id, each.area, frozen(each.polygons)) for each in objects)
        assert found == Counter(at_once(labels, classes, instances)), (labels, side)


def bars(*lengths: int) -> NDArray[np.uint8]:
    """Vertical bars of these lengths, from the first row."""
    labels = np.zeros((12, 2 * len(lengths)), np.uint8)
    for number, length in enumerate(lengths):
        labels[:length, 2 * number] = 1
    return labels


def test_an_object_leaves_with_the_last_row_of_blocks_that_it_touches() -> None:
    """So the number of objects that wait does not grow with the raster."""
    found = [(row, each.area) for row, each in joined(bars(12, 2, 5, 4, 9), classes_of(0), side=4)]
    assert found == [(0, 2), (1, 5), (1, 4), (2, 12), (2, 9)]


def test_the_score_of_a_joined_object_is_the_mean_over_its_pixels() -> None:
    labels = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], np.uint8)
    ((_, each),) = joined(labels, classes_of(0), side=4)
    assert each.area == 10
    assert each.score == pytest.approx((8 * 0 + 2 * 0.4) / 10)
