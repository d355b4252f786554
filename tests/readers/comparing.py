"""Compare the labels that a tool read with the masks of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reading import EXACT, Ids

from tipsseg.formats.yolo import oriented_box
from tipsseg.regions.components import Region, components

Corners = NDArray[np.float64]


def _upright_box(region: Region, _: tuple[int, ...]) -> Corners:
    y, x, h, w = region.box
    return np.array([[y, x], [y, x + w], [y + h, x + w], [y + h, x]], np.float64)


#: Functions that return the corners (y, x) of the box of a region in an image of a size, [4, 2], by format.
BOXES: Mapping[str, Callable[[Region, tuple[int, ...]], Corners]] = {
    "yolo-boxes": _upright_box,
    "yolo-obb": oriented_box,
}


def paint_boxes(boxes: Sequence[tuple[int, Corners]], size: tuple[int, ...]) -> Ids:
    """Fill boxes, given as class id and corners (y, x) in pixels, [4, 2]; the last one lies on top."""
    ids = np.zeros(size, np.int32)
    limits = np.array(size) - 1
    for class_id, corners in boxes:
        points = (corners.clip(0, limits) * 16).round().astype(np.int32)[:, ::-1]
        cv2.fillPoly(ids, [np.ascontiguousarray(points)], class_id, shift=4)
    return ids.astype(np.int64)


def lowest_iou(out: Path, form: str, labels: Mapping[str, Ids]) -> float:
    """Return the lowest IoU of a label id in an image, over the images in `labels`; 0 if a size differs from that of the mask."""
    ignored = json.loads((out / "classes.json").read_bytes())["ignore"]
    lowest = 1.0
    for image, ids in labels.items():
        with Image.open(out / "masks" / PurePosixPath(image).with_suffix(".png")) as picture:
            expected = np.asarray(picture).astype(np.int64)
        if form not in EXACT:  # the other formats do not store ignored pixels
            expected[expected == ignored] = 0
        if form in BOXES:
            regions = components(expected.astype(np.uint16), int(expected.max()))
            expected = paint_boxes([(each.class_id, BOXES[form](each, ids.shape)) for each in regions], ids.shape)
        if ids.shape != expected.shape:
            return 0.0
        for label_id in np.union1d(ids, expected):
            both, either = (ids == label_id) & (expected == label_id), (ids == label_id) | (expected == label_id)
            lowest = min(lowest, float(both.sum() / either.sum()))
    return lowest
