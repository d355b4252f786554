"""Pixels of objects, from the run-length codes (RLE), polygons and boxes of labelling tools.

pycocotools decodes a full picture per code and does not validate the code. Here, decoding takes work in proportion to the code's
length, and damaged codes raise ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.util.json import short

#: [R, 2], start and end of each run as column-major indices of pixels.
Runs = NDArray[np.int64]

_DIGITS_MAX = 6  # of 5 bits each, sign included; enough for any supported picture


def decode_runs(counts: str, size: tuple[int, int]) -> Runs:
    """Decode the runs of a mask of `size` (height, width). Raise ValueError for an invalid code, or one without pixels.

    A number is a series of 5-bit digits, lowest first, each a character starting at "0". Bit 5 marks that more digits follow;
    the highest bit of the last digit is the sign. From the fourth number on, each is a difference to the number two before it.
    The numbers count pixels outside and inside the mask alternately.
    """
    letters = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8) - np.uint8(48)  # below "0", large
    if not len(letters) or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("its RLE cannot be read: invalid or missing characters")
    last = np.flatnonzero(letters < 32)  # the last letters of the numbers
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _DIGITS_MAX:
        raise ValueError("its RLE cannot be read: a number is too large")
    first = last - lengths + 1
    digits = letters.astype(np.int64)
    shifts = 5 * (np.arange(len(digits)) - np.repeat(first, lengths))
    numbers = np.add.reduceat((digits & 31) << shifts, first)
    numbers -= (digits[last] >> 4 & 1) << (5 * lengths)
    for start in (1, 2):  # undo the differences
        numbers[start::2] = np.cumsum(numbers[start::2])
    runs = _runs_of(numbers, size)
    if not len(runs):
        raise ValueError("its RLE cannot be read: it has no pixels")
    return runs


def _runs_of(counts: NDArray[np.int64], size: tuple[int, int]) -> Runs:
    """Return the runs of a code from its numbers of pixels outside and inside, alternating."""
    if counts.min(initial=0) < 0 or counts.sum() != size[0] * size[1]:
        raise ValueError(f"its RLE cannot be read: its runs do not add up to {size[0]} x {size[1]} pixels")
    ends = np.cumsum(counts)
    runs = ends[: len(ends) // 2 * 2].reshape(-1, 2)
    return runs[runs[:, 1] > runs[:, 0]]


#: Maximum number of corners in an object's polygons.
CORNERS_MAX = 1_000_000

#: Maximum length of an object's outline in pixels. pycocotools needs 100 bytes per pixel, and crashes if it runs out of memory.
_OUTLINE_MAX = 10_000_000

#: Number of codes per merge. Merging all at once would process the growing result again for each code.
_MERGED = 16


#: Number of corners of the polygon that approximates an ellipse.
_ELLIPSE_CORNERS = 360


class NoPixelsError(ValueError):
    """A shape without pixels, such as a line. The message names its kind."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Pixels of an object.

    Attributes:
        class_id: Label id of the class, 1..N.
        y: First row of the mask in the image.
        x: First column of the mask in the image.
        mask: [h, w] bool; h or w is 0 for an object outside the image.
        box_only: True if the source has only a bounding box, which the mask fills.
    """

    class_id: int
    y: int
    x: int
    mask: NDArray[np.bool_]
    box_only: bool = False

    @cached_property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def place(self) -> tuple[slice, slice]:
        """Slices of the mask in an array [H, W] of the image."""
        h, w = self.mask.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the mask in the image."""
        h, w = self.mask.shape
        return self.y, self.x, self.y + h, self.x + w

    def within(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """Return the mask padded to a larger box (top, left, bottom, right), [h, w]."""
        top, left, bottom, right = box
        (y, x), (h, w) = (self.y - top, self.x - left), self.mask.shape
        padded = np.zeros((bottom - top, right - left), np.bool_)
        if self.mask.size:
            padded[y : y + h, x : x + w] = self.mask
        return padded

    def runs(self, height: int) -> Runs:
        """Return the pixels as column-major runs in an image of this height, one for each part of a column."""
        h, w = self.mask.shape
        columns = np.zeros((w, h + 2), np.int8)
        columns[:, 1:-1] = self.mask.T
        column, row = np.divmod(np.flatnonzero(np.diff(columns.reshape(-1))) + 1, h + 2)
        return ((self.x + column) * height + self.y + row - 1).reshape(-1, 2)

    def box_distance(self, other: Shape) -> int:
        """Return the largest difference between the sides of two shapes' boxes, in pixels."""
        return max(abs(own - its) for own, its in zip(self.box, other.box, strict=True))

    def iou(self, other: Shape) -> float:
        """Return the intersection over union with another shape, 0..1."""
        (top, left), (bottom, right) = np.maximum(self.box[:2], other.box[:2]), np.minimum(self.box[2:], other.box[2:])
        if bottom <= top or right <= left:
            return 0.0
        own = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
        its = other.mask[top - other.y : bottom - other.y, left - other.x : right - other.x]
        both = int(np.count_nonzero(own & its))
        return both / (self.area + other.area - both or 1)


def shape_from_mask(class_id: int, mask: NDArray[np.bool_], y: int = 0, x: int = 0) -> Shape:
    """Create a shape from a mask [h, w] with its first pixel at (y, x), cropped to the bounding box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Shape(class_id, y, x, np.zeros((0, 0), np.bool_))
    top, left = int(rows[0]), int(columns[0])
    cut = np.ascontiguousarray(mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])
    return Shape(class_id, y + top, x + left, cut)


def clip_mask(class_id: int, mask: NDArray[np.bool_], y: int, x: int, size: tuple[int, int]) -> Shape:
    """Create a shape from the part of a mask [h, w] with its first pixel at (y, x) that lies in an image of size (H, W)."""
    top, left = max(y, 0), max(x, 0)
    return shape_from_mask(class_id, mask[top - y : max(size[0] - y, 0), left - x : max(size[1] - x, 0)], top, left)


def shape_from_box(class_id: int, sides: tuple[float, float, float, float], size: tuple[int, int]) -> Shape:
    """Create a shape from a box (left, top, right, bottom), rounded and cut at the border of an image of size (H, W).

    Raises:
        ValueError: A side is far outside the image.
    """
    if not all(abs(side) <= 2 * max(size) for side in sides):
        raise ValueError(f"a box is far outside the image, which is {size[0]} x {size[1]} (height x width)")
    left, top, right, bottom = map(round, sides)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
    return Shape(class_id, top, left, np.ones((max(bottom - top, 0), max(right - left, 0)), np.bool_), box_only=True)


def rectangle_corners(
    pivot: tuple[float, float], start: tuple[float, float], sides: tuple[float, float], angle: float
) -> NDArray[np.float64]:
    """Return the corners (x, y) of a rectangle turned around a point, [4, 2].

    Args:
        pivot: The point (x, y).
        start: The top left corner (x, y) before the turn.
        sides: Width and height.
        angle: The turn in degrees, clockwise.
    """
    (x, y), (w, h) = start, sides
    return _turn(np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64), pivot, angle)


def ellipse_corners(centre: tuple[float, float], radii: tuple[float, float], angle: float) -> NDArray[np.float64]:
    """Return the corners (x, y) of a polygon that approximates an ellipse turned clockwise by degrees, [360, 2]."""
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    return _turn(np.array(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii, centre, angle)


def _turn(points: NDArray[np.float64], pivot: tuple[float, float], angle: float) -> NDArray[np.float64]:
    if not angle:
        return points
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned: NDArray[np.float64] = (points - pivot) @ np.array([[cosine, sine], [-sine, cosine]]) + np.array(pivot)
    return turned


def shape_from_polygons(class_id: int, rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Shape:
    """Create a shape from the union of rings, filled by pycocotools. Ignore rings with fewer than 3 corners.

    Args:
        class_id: The label id.
        rings: The corners of each ring, [K, 2] (x, y) in pixels of the image; pixel (i, j) spans (i, j) to (i + 1, j + 1).
        size: (height, width) of the image.

    Raises:
        NoPixelsError: No ring has 3 corners.
        ValueError: The object has no ring, or a corner is far outside the image.
    """
    height, width = size
    if not rings:
        raise ValueError("the object has no polygon")
    rings = [ring for ring in rings if len(ring) >= 3]
    if not rings:
        raise NoPixelsError("polygon with fewer than 3 corners")
    corners = np.concatenate(rings)
    if len(corners) > CORNERS_MAX:
        raise ValueError(f"the polygons have more than {CORNERS_MAX:,} corners")
    if not np.isfinite(corners).all():
        raise ValueError("a coordinate of a corner is not a finite number")
    if (corners < (-width, -height)).any() or (corners > (2 * width, 2 * height)).any():
        raise ValueError(f"a corner is far outside the image, which is {height} x {width} (height x width)")
    if sum(np.abs(np.roll(ring, -1, axis=0) - ring).max(axis=1).sum() for ring in rings) > _OUTLINE_MAX:
        raise ValueError(f"the outline is longer than {_OUTLINE_MAX:,} pixels")
    # Add one pixel on each side, because polygons may be filled up to the next pixel.
    left, top = (max(0, int(np.floor(low)) - 1) for low in corners.min(axis=0))
    right, bottom = (
        min(end, int(np.ceil(high)) + 2) for end, high in zip((width, height), corners.max(axis=0), strict=True)
    )
    if right <= left or bottom <= top:
        return Shape(class_id, 0, 0, np.zeros((0, 0), np.bool_))
    # A shift by whole pixels does not change the filling, so fill only the bounding box.
    moved = [(ring - (left, top)).ravel().tolist() for ring in rings]
    codes = coco_mask.frPyObjects(moved, bottom - top, right - left)
    while len(codes) > 1:
        codes = [coco_mask.merge(codes[at : at + _MERGED]) for at in range(0, len(codes), _MERGED)]
    code = codes[0]
    if not coco_mask.area(code):
        x, y = corners.mean(axis=0).astype(int).tolist()
        return Shape(class_id, y, x, np.zeros((0, 0), np.bool_))
    # Avoid pycocotools' decoder, which warns with numpy 2.
    filled = shape_from_runs(class_id, decode_runs(code["counts"].decode(), (bottom - top, right - left)), bottom - top)
    return Shape(class_id, filled.y + top, filled.x + left, filled.mask)


def shape_from_runs(class_id: int, runs: Runs, height: int) -> Shape:
    """Create a shape from column-major runs in an image of the given height."""
    if not len(runs):
        return Shape(class_id, 0, 0, np.zeros((0, 0), np.bool_))
    first, last = int(runs[0, 0]) // height, (int(runs[-1, 1]) - 1) // height
    columns = np.zeros((last - first + 1, height), np.bool_)  # [w, H]
    lengths = np.diff(runs.reshape(-1))  # of runs and of the gaps between them
    inside = np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)
    columns.reshape(-1)[runs[0, 0] - first * height : runs[-1, 1] - first * height] = inside
    return shape_from_mask(class_id, columns.T, 0, first)


def shape_from_rle(class_id: int, code: Mapping[str, object], size: tuple[int, int]) -> Shape:
    """Create a shape from COCO's run-length code, compressed or not. Raise ValueError if it is invalid or has another size."""
    return shape_from_runs(class_id, runs_from_rle(code, size), size[0])


def runs_from_rle(code: Mapping[str, object], size: tuple[int, int]) -> Runs:
    """Return the column-major runs of COCO's run-length code. Raise ValueError if it is invalid or has another size."""
    if code.get("size") != list(size):
        raise ValueError(f"its RLE has size {short(code.get('size'))}, but the image has {list(size)}")
    counts = code.get("counts")
    if isinstance(counts, str):
        return decode_runs(counts, size)
    if not isinstance(counts, list) or not all(
        type(count) is int and 0 <= count <= size[0] * size[1] for count in counts
    ):
        raise ValueError("its RLE is neither a string nor a list of numbers of pixels of the image")
    return _runs_of(np.array(counts, np.int64), size)
