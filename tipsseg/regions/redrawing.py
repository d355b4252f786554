"""Tell whether two outlines are the same one, redrawn by a tool that rounds corners, fills holes or drops what is thin.

The bounds are what tools did to objects that nobody edited, see tests/readers: almost everywhere an outline moves by two pixels at
most, at single corners by up to four. Parts thinner than three pixels get lost, holes and narrow bays are closed.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

#: How far, in pixels, tools move an outline, measured to the centre of the next pixel but two.
MOVED = 2.25

#: The same at single corners, and the share of an outline that may lie beyond MOVED.
_MOVED_MOST = 4.5
_SHARE = 0.1

#: Of things thinner than this, in pixels, that share of the pixels may differ at most.
_THIN = 8
_THIN_SHARE = 2 / 3

#: Pixels that mean nothing on their own.
_BLOCK = np.ones((3, 3), np.uint8)

Mask = NDArray[np.bool_]


def is_lost(mask: Mask) -> bool:
    """Tell whether a mask [h, w] is nowhere three pixels wide and high, so that tools may write nothing of it."""
    return not _without_thin_parts(np.pad(mask, 1)).any()


def is_thin(mask: Mask) -> bool:
    """Tell whether a mask [h, w] is so thin that tools may write little of it."""
    return bool(2 * _distances(np.pad(mask, 1)).max() < _THIN)


def filled(mask: Mask) -> Mask:
    """Fill the holes of a mask [h, w]."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def edits(old: Mask, new: Mask) -> Mask | None:
    """Find the pixels of a correction that no tool changes on its own: the differences beyond the bounds, with those around them.

    `old` and `new` are [h, w], the object before and after, with 3 pixels or more of background on each side. Returns [h, w], or
    None if no difference goes beyond the bounds.
    """
    beyond = _beyond(old, new)
    if not beyond.any():
        return None
    edited: Mask = (old != new) & (_distances(~beyond) <= MOVED + 1)
    return edited


def looks(old: Mask, new: Mask) -> Iterator[Mask]:
    """Yield the forms in which a tool may write an object: with and without narrow bays, with and without holes.

    Of the holes those are filled whose edges `new` covers, as far as it does: other objects may lie in them.
    """
    closed = cv2.morphologyEx(old.view(np.uint8), cv2.MORPH_CLOSE, _BLOCK).view(np.bool_)
    for base in (old, closed):
        yield base
        number, parts = cv2.connectedComponents((filled(base) & ~base).view(np.uint8), connectivity=4)
        if number > 1:
            edges = np.where(cv2.dilate(base.view(np.uint8), _BLOCK, iterations=2) > 0, parts, 0)
            covered = np.bincount(edges[new], minlength=number) * 2 > np.bincount(edges.reshape(-1), minlength=number)
            covered[0] = False
            yield base | (covered[parts] & new)


def _beyond(old: Mask, new: Mask) -> Mask:
    """Return the differing pixels beyond the bounds, [h, w]; none if they are few and near enough."""
    distance = np.zeros(old.shape, np.float32)
    for before, after in ((old, new), (~old, ~new)):
        lost = before & ~after
        if lost.any():
            # Inside: how deep. Of parts that are not thin also how far from what is left of them.
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
    """Return the distance of each pixel in a mask to the nearest one outside, [h, w]; large if there is none."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[return-value]


def _without_thin_parts(mask: Mask) -> Mask:
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, _BLOCK).view(np.bool_)
