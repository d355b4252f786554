"""Label ids -> regions and their run-length codes. numpy, OpenCV and pycocotools only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.records import LabelArray


class Rle(TypedDict):
    """A mask as COCO's compressed run-length code: `size` [h, w] and `counts`, ASCII text."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels of one class: a connected component, or all of them.

    class_id  the label id
    area      pixels
    box       (y, x, h, w): the smallest box around it
    mask      [h, w] bool, the region inside its box
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


def count_labels(labels: LabelArray) -> NDArray[np.int64]:
    """The number of pixels of each label id in `labels` [H, W]: 256 counts for uint8, 65536 for uint16."""
    ids = int(np.iinfo(labels.dtype).max) + 1
    counts = np.zeros(ids, np.int64)
    flat = labels.reshape(-1)
    # By pieces: numpy's count makes 64-bit copies, eight times a large map.
    for start in range(0, flat.size, 1 << 20):
        counts += np.bincount(flat[start : start + (1 << 20)], minlength=ids)
    return counts


def components(labels: LabelArray, number_of_classes: int, min_area: int = 1) -> list[Region]:
    """The 8-connected components of the classes 1..N in `labels` [H, W], uint8 or uint16.

    Components of fewer than `min_area` pixels are left out; background and ignored pixels belong to none. Sorted by
    class id, then top row, then left column (then by the leftmost pixel of the top row, which no two share).
    """
    regions: list[Region] = []
    for class_id in _occurring(labels, number_of_classes):
        regions.extend(_components_of(labels, class_id, min_area))
    return regions


def whole_classes(labels: LabelArray, number_of_classes: int, min_area: int = 1) -> list[Region]:
    """All pixels of each of the classes 1..N in `labels` [H, W] as one region, where there are at least `min_area`; by class id."""
    regions: list[Region] = []
    for class_id in _occurring(labels, number_of_classes):
        mask, (top, left) = _cropped(labels, class_id)
        area = int(np.count_nonzero(mask))
        if area >= min_area:
            height, width = mask.shape
            regions.append(Region(class_id, area, (top, left, height, width), mask.astype(np.bool_)))
    return regions


def _occurring(labels: LabelArray, number_of_classes: int) -> list[int]:
    present = np.flatnonzero(count_labels(labels))
    occurring: list[int] = present[(present >= 1) & (present <= number_of_classes)].tolist()
    return occurring


def _cropped(labels: LabelArray, class_id: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A class's pixels as 1 in the smallest box around them, and that box's (y, x)."""
    mask = (labels == class_id).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    return np.ascontiguousarray(mask[top : top + height, left : left + width]), (top, left)


def _components_of(labels: LabelArray, class_id: int, min_area: int) -> list[Region]:
    mask, (top, left) = _cropped(labels, class_id)
    count, numbered, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)

    found: list[tuple[tuple[int, int, int], Region]] = []
    for number in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[number])
        if area < min_area:
            continue
        inside = numbered[y : y + h, x : x + w] == number
        region = Region(class_id, area, (top + y, left + x, h, w), inside)
        # The order must not hang on how OpenCV numbers components, which differs with its threads and versions.
        found.append(((y, x, int(inside[0].argmax())), region))
    found.sort(key=lambda pair: pair[0])
    return [region for _, region in found]


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """The compressed run-length code of a whole mask [H, W]."""
    height, width = mask.shape
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def encode_region(region: Region, size: tuple[int, int]) -> Rle:
    """The compressed run-length code of a region in an image of `size` (height, width).

    Equal to `encode_rle` of the whole mask, but the work goes with the region's box and not with the image, which
    matters where a map has thousands of regions.
    """
    height, width = size
    y, x, h, w = region.box
    # Runs go down the columns. A row of zeros on each end makes every column's first and last pixel an edge.
    padded = np.zeros((w, h + 2), np.int8)
    padded[:, 1:-1] = region.mask.T
    steps = np.diff(padded, axis=1)
    columns, first = np.nonzero(steps == 1)
    _, last = np.nonzero(steps == -1)
    base = (x + columns.astype(np.int64)) * height + y
    edges = np.stack([base + first, base + last], axis=1).ravel()
    # A run that ends at the bottom of the image goes on at the top of the next column: drop both edges.
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    runs = np.diff(edges, prepend=0)
    rest = height * width - int(edges[-1])
    counts = runs.tolist() + ([rest] if rest else [])
    code = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
