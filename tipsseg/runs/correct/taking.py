"""Old labels and corrections -> new labels, in which nothing moves that nobody changed.

Formats of objects do not hold all that a mask does: polygons are near their pixels, small objects are left out, and there is no
"ignored". So each object of a correction is compared with the objects that the format shows of the old labels. One that was not
changed keeps its old pixels; of one that was changed, the pixels change that the change is about.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.runs.correct.found import Objects, Whole
from tipsseg.runs.correct.shapes import Shape, of_mask
from tipsseg.types import BACKGROUND, LabelArray

#: From this IoU on, an object of a correction is taken for an object of the old labels that was changed.
_SAME_OBJECT = 0.5


def take_whole(old: LabelArray, new: Whole, ignored: int) -> LabelArray:
    """The new labels [H, W], where a correction says the label of every pixel; `ignored` is the id of ignored pixels."""
    labels = new.labels.astype(np.uint8) if old.dtype == np.uint8 else new.labels.astype(np.uint16)
    if not new.ignores:
        labels[(old == ignored) & (labels == BACKGROUND)] = ignored
    return labels


def take_objects(old: LabelArray, before: Sequence[Shape], new: Objects) -> LabelArray:
    """The new labels of an image, where a correction lists objects.

    Args:
        old: The old labels, [H, W].
        before: The objects that the format of the correction shows of the old labels.
        new: The correction.

    Returns:
        [H, W]: without the objects that are gone, and with those that are new or were changed, which lie above those that stayed;
        of two of them the later one lies above. What neither had stays as it was.
    """
    partners = _partners(before, new.shapes)
    labels = old.copy()
    stayed = {
        partner
        for shape, partner in zip(new.shapes, partners, strict=True)
        if partner is not None and _is_same(shape, before[partner])
    }
    if len(stayed) == len(before) == len(new.shapes):
        return labels
    owners = _owners(old, before)
    for number in range(len(before)):
        if number not in stayed:
            labels[owners == number] = BACKGROUND
    for shape, partner in zip(new.shapes, partners, strict=True):
        if partner is None:
            _paint(labels, shape)
        elif partner not in stayed:
            _paint(labels, _changed(shape, before[partner], owners == partner))
    return labels


def _is_same(shape: Shape, other: Shape) -> bool:
    return shape.class_id == other.class_id and shape.same_pixels(other)


def _partners(before: Sequence[Shape], after: Sequence[Shape]) -> list[int | None]:
    """For each new shape the number of the old one that it is, changed or not; None for one that was not there."""
    found: list[int | None] = [None] * len(after)
    free = dict.fromkeys(range(len(before)))
    by_pixels: dict[tuple[object, ...], list[int]] = {}
    for number, shape in enumerate(before):
        by_pixels.setdefault(_key(shape), []).append(number)
    for place, shape in enumerate(after):  # the same pixels, of the same class where there is one
        alike = [number for number in by_pixels.get(_key(shape), []) if number in free]
        alike.sort(key=lambda number: before[number].class_id != shape.class_id)
        if alike:
            found[place] = alike[0]
            del free[alike[0]]
    pairs = [
        (iou, number, place)
        for place, shape in enumerate(after)
        if found[place] is None
        for number in free
        if (iou := shape.iou(before[number])) >= _SAME_OBJECT
    ]
    for _, number, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if found[place] is None and number in free:
            found[place] = number
            del free[number]
    return found


def _key(shape: Shape) -> tuple[object, ...]:
    return shape.y, shape.x, shape.mask.shape, shape.mask.tobytes()


def _owners(old: LabelArray, before: Sequence[Shape]) -> NDArray[np.int32]:
    """[H, W], the number of the object that each pixel belongs to; -1 for pixels of none.

    A pixel beside the polygon of its object belongs to the nearest polygon of its class, where its connected region meets one.
    """
    owners = np.full(old.shape, -1, np.int32)
    for class_id in dict.fromkeys(shape.class_id for shape in before):
        own = (old == class_id).view(np.uint8)
        inside = np.full(old.shape, -1, np.int32)
        for number, shape in enumerate(before):
            if shape.class_id == class_id:
                inside[shape.place][shape.mask] = number
        inside[own == 0] = -1
        _, regions = cv2.connectedComponents(own, connectivity=8)
        seeds = (inside < 0).astype(np.uint8)
        if seeds.all():
            continue
        _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        numbers = np.zeros(int(nearest.max()) + 1, np.int32)
        numbers[nearest[seeds == 0]] = inside[seeds == 0]
        reached = np.zeros(int(regions.max()) + 1, np.bool_)
        reached[regions[seeds == 0]] = True
        mine = (own > 0) & reached[regions]
        owners[mine] = numbers[nearest[mine]]
    return owners


def _changed(shape: Shape, before: Shape, pixels: NDArray[np.bool_]) -> Shape:
    """A changed object: where its old and its new shape agree, its old pixels [H, W] decide; else the new shape does."""
    new, old = np.zeros_like(pixels), np.zeros_like(pixels)
    new[shape.place] = shape.mask
    old[before.place] = before.mask
    return of_mask(shape.class_id, np.where(new == old, pixels, new))


def _paint(labels: LabelArray, shape: Shape) -> None:
    labels[shape.place][shape.mask] = shape.class_id
