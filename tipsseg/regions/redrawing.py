"""Distinguish a person's edits from the changes of a tool that rounds corners, fills holes or drops thin parts.

The bounds are those of tools that saved unedited objects, see tests/readers: an outline moves by at most two pixels almost
everywhere, and by up to four at single corners. Parts thinner than three pixels get lost; holes and narrow bays are closed.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

#: Maximum distance by which tools move an outline, in pixels.
MOVED = 2.25

#: The same at single corners, and the share of an outline that may lie beyond MOVED.
_MOVED_MOST = 4.5
_SHARE = 0.1

#: Objects thinner than this, in pixels, may differ in at most this share of their pixels.
_THIN = 8
_THIN_SHARE = 2 / 3

#: Structuring element: parts that do not contain it are thin.
_BLOCK = np.ones((3, 3), np.uint8)

Mask = NDArray[np.bool_]


def is_lost(mask: Mask) -> bool:
    """Return True if a mask [h, w] contains no block of 3 x 3 pixels, so that tools may drop it completely."""
    return not _without_thin_parts(np.pad(mask, 1)).any()


def is_thin(mask: Mask) -> bool:
    """Return True if a mask [h, w] is so thin that tools may drop most of it."""
    return bool(2 * _distances(np.pad(mask, 1)).max() < _THIN)


def fill_holes(mask: Mask) -> Mask:
    """Fill the holes of a mask [h, w]."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def find_edits(old: Mask, new: Mask) -> Mask | None:
    """Find the pixels that a person edited: the differences beyond the bounds, and the differences around them.

    `old` and `new` are masks [h, w] of the object before and after, with at least 3 pixels of background on each side. Return a
    mask [h, w], or None if all differences are within the bounds.
    """
    beyond = _beyond(old, new)
    if not beyond.any():
        return None
    edited: Mask = (old != new) & (_distances(~beyond) <= MOVED + 1)
    return edited


def tool_variants(old: Mask, new: Mask) -> Iterator[Mask]:
    """Yield the versions of an object that a tool may save: with and without narrow bays, with and without holes.

    Fill only holes whose edges `new` covers, and only the pixels in `new`, because a hole may contain other objects.
    """
    closed = cv2.morphologyEx(old.view(np.uint8), cv2.MORPH_CLOSE, _BLOCK).view(np.bool_)
    for base in (old, closed):
        yield base
        number, parts = cv2.connectedComponents((fill_holes(base) & ~base).view(np.uint8), connectivity=4)
        if number > 1:
            edges = np.where(cv2.dilate(base.view(np.uint8), _BLOCK, iterations=2) > 0, parts, 0)
            covered = np.bincount(edges[new], minlength=number) * 2 > np.bincount(edges.reshape(-1), minlength=number)
            covered[0] = False
            yield base | (covered[parts] & new)


def _beyond(old: Mask, new: Mask) -> Mask:
    """Return a mask [h, w] of the differing pixels beyond the bounds; empty if they are few and close enough."""
    distance = np.zeros(old.shape, np.float32)
    for before, after in ((old, new), (~old, ~new)):
        lost = before & ~after
        if lost.any():
            # The depth inside the old object. For parts that are not thin, also the distance from the remaining pixels.
            far = np.where(_without_thin_parts(before), _distances(~after), 0)
            distance = np.where(lost, np.maximum(_distances(before), far), distance)
    inside = _distances(old)
    most = _THIN_SHARE * np.count_nonzero(old)
    if 2 * inside.max() < _THIN and _without_thin_parts(old).any() and np.count_nonzero(distance) > most:
        return distance > 0
    beyond = distance > MOVED
    edge = np.count_nonzero((inside > 0) & (inside < 1.5))
    if distance.max() <= _MOVED_MOST and np.count_nonzero(beyond) <= _SHARE * edge:
        beyond[:] = False
    return beyond


def _distances(mask: Mask) -> NDArray[np.float32]:
    """Return the distance of each pixel of a mask to the nearest one outside, [h, w]; large for a mask without background."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[return-value]


def _without_thin_parts(mask: Mask) -> Mask:
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, _BLOCK).view(np.bool_)
