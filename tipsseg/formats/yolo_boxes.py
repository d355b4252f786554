"""YOLO detection: a box per object, upright or oriented, in the layout of the format `yolo`.

    yolo-boxes/labels/train/<image>.txt     class number, then x and y of the centre, width and height
    yolo-obb/labels/train/<image>.txt       class number, then x and y of the four corners

All numbers are fractions of the image size. A box covers the pixels of its object to their outer edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.yolo import IMAGES, LABELS, Yolo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.regions.components import Region


class YoloBoxes(Yolo):
    name = "yolo-boxes"
    description = "YOLO detection, an upright box per object: yolo-boxes/data.yaml, labels and links as for yolo"
    folder = f"{name}/{LABELS}"
    link_folder = f"{name}/{IMAGES}"
    files = (f"{name}/data.yaml",)
    multi_part_objects = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        height, width = image.size
        lines = []
        for entry in image.objects:
            y, x, h, w = entry.region.box
            numbers = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
            lines.append(_line(entry.region.class_id, numbers))
        return "".join(lines).encode("ascii")


class YoloObb(YoloBoxes):
    name = "yolo-obb"
    description = "YOLO oriented boxes, the smallest rectangle around each object: yolo-obb/data.yaml, labels and links as for yolo"
    folder = f"{name}/{LABELS}"
    link_folder = f"{name}/{IMAGES}"
    files = (f"{name}/data.yaml",)

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return a line per object. Corners outside the image are moved to its border, because readers refuse them."""
        height, width = image.size
        lines = []
        for entry in image.objects:
            corners = oriented_box(entry.region).clip(0, (height, width)) / (height, width)  # [4, 2]
            lines.append(_line(entry.region.class_id, corners[:, ::-1].ravel().tolist()))
        return "".join(lines).encode("ascii")


def oriented_box(region: Region) -> NDArray[np.float64]:
    """Return the corners (y, x) of the smallest rectangle around a region, [4, 2], clockwise from the topmost."""
    import cv2
    import numpy as np

    # The outer corners of the first and the last pixel of each row span the convex hull of all pixels.
    rows = np.flatnonzero(region.mask.any(1))
    first = region.mask[rows].argmax(1)
    last = region.mask.shape[1] - region.mask[rows, ::-1].argmax(1)
    points = np.stack(
        [(each + lower, sides) for sides in (first, last) for each, lower in ((rows, 0), (rows, 1))]
    )  # [4, 2, R]
    points = points.transpose(0, 2, 1).reshape(-1, 2)
    rectangle = cv2.minAreaRect(points[:, ::-1].astype(np.float32))
    corners = cv2.boxPoints(rectangle)[:, ::-1].astype(np.float64).round(3) + np.array(region.box[:2])
    # With y down, growing angles turn clockwise.
    corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T))]
    return np.roll(corners, -int(np.lexsort((corners[:, 1], corners[:, 0]))[0]), 0)


def _line(class_id: int, numbers: Iterable[float]) -> str:
    return f"{class_id - 1} {' '.join(f'{number:.6f}' for number in numbers)}\n"
