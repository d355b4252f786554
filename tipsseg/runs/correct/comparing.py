"""Compare the objects of a correction with the old objects, so that only edited pixels change.

Object formats store less than a mask: polygons only approximate pixels, small objects are omitted, and ignored pixels are missing.
Annotation tools also redraw objects: they round corners, fill holes and drop thin parts. Therefore, an object that nobody edited
keeps its old pixels, and an edited object changes only where it was edited. Only the source as a whole shows whether its tool
redraws objects, so the comparison of an image allows for both cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.polygons import MOVED, fill_holes, find_edits, is_lost, is_thin, tool_variants
from tipsseg.regions.shapes import Shape, shape_from_mask
from tipsseg.runs.correct.old_objects import owners_of
from tipsseg.types import LabelArray

#: The minimum IoU of an edited object with its old object.
_SAME_OBJECT = 0.5

#: Background pixels around two compared objects, which `find_edits` needs.
_MARGIN = 4

_Box = tuple[int, int, int, int]


class Comparison:
    """The objects of a correction, paired with old objects.

    `new` is an index into `shapes`, `old` an index into `before`.

    Attributes:
        labels: [H, W], the old labels.
        before: The old objects, as the correction's format writes them.
        shapes: The objects in the correction.
        partners: The old object of each object in the correction, edited or not; None for a new object.
        same: Old objects that came back unchanged.
        untouched: Unedited old objects that came back only as a box, or stretched by a pixel.
        redrawn: Old objects that differ only as far as tools redraw objects, or are missing but so thin that tools drop them.
        parts: New objects that are part of a redrawn object.
        edited: Edited objects without the tool's own changes, by `new`.
    """

    def __init__(
        self, labels: LabelArray, before: Sequence[Shape], shapes: Sequence[Shape], *, exact: bool = False
    ) -> None:
        """Compare all objects. With `exact`, every difference is an edit."""
        self._exact = exact
        self.labels, self.before, self.shapes = labels, before, shapes
        self.partners: list[int | None] = [None] * len(shapes)
        self._free = dict.fromkeys(range(len(before)))
        self.same, self.redrawn, self.untouched = set[int](), set[int](), set[int]()
        self.parts: set[int] = set()
        self.edited: dict[int, Shape] = {}
        self._pair_identical()
        if self._incomplete:
            self._pair_overlapping()
        for new, old in enumerate(self.partners):
            if old is not None and old not in self.same and not exact:
                self._classify(new, old)
        if self._incomplete:
            self._pair_boxes_and_thin_objects()
            if not exact:
                self._find_parts()
                self.redrawn.update(old for old in self._free if is_lost(self._old_pixels(old).mask))

    @property
    def boxes(self) -> list[Shape]:
        """Return the boxes without polygons that match no old object. They are new objects that fill the box."""
        pairs = zip(self.shapes, self.partners, strict=True)
        return [shape for shape, partner in pairs if shape.box_only and shape.mask.size and partner is None]

    @property
    def depends_on_source(self) -> bool:
        """Return True if the new labels depend on whether the source writes objects exactly."""
        return bool(self.redrawn or self.parts or self.edited or self.untouched)

    @property
    def unchanged_if_redrawn(self) -> bool:
        """Return True if the labels do not change, provided that the source redraws objects."""
        stay = self.same | self.untouched | self.redrawn
        new = (index for index, partner in enumerate(self.partners) if partner is None)
        return len(stay) == len(self.before) and not self.edited and self.parts.issuperset(new)

    @cached_property
    def owners(self) -> NDArray[np.int32]:
        """[H, W], the old object of each pixel; -1 outside all objects."""
        return owners_of(self.labels, self.before)

    def whole_edit(self, new: int, old: int) -> Shape:
        """Return an edited object of an exact source: its old pixels where the old and new shapes agree, else the new shape."""
        shape, before, pixels = self.shapes[new], self.before[old], self._old_pixels(old)
        box = _box_around((shape, before, pixels), 0)
        drawn, written = shape.within(box), before.within(box)
        return shape_from_mask(shape.class_id, np.where(drawn == written, pixels.within(box), drawn), *box[:2])

    @cached_property
    def _pixels_by_owner(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Flat indices of all owned pixels, sorted by owner, and the first position of each owner."""
        flat = self.owners.reshape(-1)
        pixels = np.flatnonzero(flat >= 0)
        pixels = pixels[np.argsort(flat[pixels], kind="stable")]
        return pixels, np.searchsorted(flat[pixels], np.arange(len(self.before) + 1))

    def _old_pixels(self, old: int) -> Shape:
        """Return the pixels of an old object in the old labels."""
        pixels, starts = self._pixels_by_owner
        y, x = np.divmod(pixels[starts[old] : starts[old + 1]], self.labels.shape[1])
        if not len(y):
            return replace(self.before[old], mask=np.zeros((0, 0), np.bool_))
        mask = np.zeros((int(np.ptp(y)) + 1, int(np.ptp(x)) + 1), np.bool_)
        mask[y - y.min(), x - x.min()] = True
        return Shape(self.before[old].class_id, int(y.min()), int(x.min()), mask)

    # ---- pairs ----

    @property
    def _incomplete(self) -> bool:
        return bool(self._free) or None in self.partners

    def _pair(self, new: int, old: int) -> None:
        self.partners[new] = old
        del self._free[old]

    def _pair_identical(self) -> None:
        """Pair objects with the same pixels; prefer the same class."""
        by_pixels: dict[tuple[object, ...], list[int]] = {}
        for old, shape in enumerate(self.before):
            by_pixels.setdefault(_pixels_key(shape), []).append(old)
        for new, shape in enumerate(self.shapes):
            alike = [old for old in by_pixels.get(_pixels_key(shape), []) if old in self._free]
            if alike and not shape.box_only:
                partner = min(alike, key=lambda old: self.before[old].class_id != shape.class_id)
                self._pair(new, partner)
                if self.before[partner].class_id == shape.class_id:
                    self.same.add(partner)

    def _pair_overlapping(self) -> None:
        """Pair objects by IoU, best pairs first."""
        candidates = []
        wholes = {old: replace(self.before[old], mask=fill_holes(self.before[old].mask)) for old in self._free}
        for new, old in self._neighbours(0):
            shape = self.shapes[new]
            if not shape.box_only:
                iou = max(shape.iou(self.before[old]), shape.iou(wholes[old]))
                if iou >= _SAME_OBJECT:
                    candidates.append((-iou, old, new))
        for _, old, new in sorted(candidates):
            if self.partners[new] is None and old in self._free:
                self._pair(new, old)

    def _pair_boxes_and_thin_objects(self) -> None:
        """Pair boxes with old objects that have the same box, and thin old objects with what a tool left of them."""
        thin = {old for old in self._free if not self._exact and is_thin(self._old_pixels(old).mask)}
        for new, old in self._neighbours(1):
            shape = self.shapes[new]
            if self.partners[new] is None and old in self._free and shape.class_id == self.before[old].class_id:
                if shape.box_only:
                    if shape.box_distance(self.before[old]) <= MOVED:
                        self._pair(new, old)
                        self.untouched.add(old)
                elif old in thin and self._edited_pixels(shape, old) is None:
                    self._pair(new, old)
                    self.redrawn.add(old)

    def _neighbours(self, margin: int) -> Iterator[tuple[int, int]]:
        """Yield unpaired objects (new, old) whose boxes overlap or are less than `margin` pixels apart."""
        free = np.array(list(self._free), np.intp)
        boxes = np.array([self.before[old].box for old in self._free], np.int64).reshape(-1, 4)
        for new, shape in enumerate(self.shapes):
            if self.partners[new] is None and shape.mask.size:
                top, left, bottom, right = shape.box
                near = (boxes[:, :2] < (bottom + margin, right + margin)) & (
                    boxes[:, 2:] > (top - margin, left - margin)
                )
                yield from ((new, old) for old in free[near.all(axis=1)].tolist())

    def _find_parts(self) -> None:
        """Find new objects inside a redrawn object, with a tolerance of `MOVED` pixels around it."""
        unpaired = [
            new
            for new, shape in enumerate(self.shapes)
            if self.partners[new] is None and not shape.box_only and shape.mask.size
        ]
        boxes = np.array([self.shapes[new].box for new in unpaired], np.int64).reshape(-1, 4)
        for old in self.redrawn if unpaired else ():
            pixels = self._old_pixels(old)
            box = top, left, bottom, right = _box_around((self.before[old], pixels), int(MOVED))
            within = (boxes[:, :2] >= (top, left)) & (boxes[:, 2:] <= (bottom, right))
            inside = [unpaired[index] for index in np.flatnonzero(within.all(axis=1))]
            inside = [new for new in inside if self.shapes[new].class_id == pixels.class_id]
            if inside:
                distance = cv2.distanceTransform(
                    (~pixels.within(box)).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
                )
                self.parts.update(new for new in inside if (distance[self.shapes[new].within(box)] <= MOVED).all())

    # ---- edits ----

    def _classify(self, new: int, old: int) -> None:
        """Add a pair to `untouched`, `same`, `redrawn` or `edited`."""
        shape, pixels = self.shapes[new], self._old_pixels(old)
        if shape.class_id == pixels.class_id and _is_stretched(pixels, shape):
            self.untouched.add(old)
            return
        edit = self._edited_pixels(shape, old)
        if edit is None and shape.class_id == self.before[old].class_id:
            (self.same if shape.same_pixels(pixels) else self.redrawn).add(old)
        elif edit is None:
            self.edited[new] = replace(pixels, class_id=shape.class_id)
        else:
            box = _box_around((shape, self.before[old], pixels), _MARGIN)
            mask = np.where(edit, shape.within(box), pixels.within(box))
            self.edited[new] = shape_from_mask(shape.class_id, mask, *box[:2])

    def _edited_pixels(self, shape: Shape, old: int) -> NDArray[np.bool_] | None:
        """Return the pixels that a person edited, in the box around both objects; None if a tool explains all differences."""
        pixels, written = self._old_pixels(old), self.before[old]
        box = _box_around((shape, written, pixels), _MARGIN)
        drawn = shape.within(box)
        fewest: NDArray[np.bool_] | None = None
        for before in (pixels, written)[: 1 if pixels.same_pixels(written) else 2]:
            for variant in tool_variants(before.within(box), drawn):
                edit = find_edits(variant, drawn)
                if edit is None:
                    return None
                if fewest is None or np.count_nonzero(edit) < np.count_nonzero(fewest):
                    fewest = edit
        return fewest


def _pixels_key(shape: Shape) -> tuple[object, ...]:
    return shape.y, shape.x, shape.mask.shape, shape.mask.tobytes()


def _is_stretched(old: Shape, new: Shape) -> bool:
    """Return True if the new shape is the old one resized to a box that is off by a pixel, as FiftyOne resizes masks.

    The shapes must also differ inside the box, because a box that is one pixel smaller may be an edit.
    """
    if not new.mask.size or not old.mask.size or old.box_distance(new) > 2:
        return False
    box = _box_around((old, new), 0)
    if not (old.within(box) != new.within(box))[1:-1, 1:-1].any():
        return False
    h, w = old.mask.shape
    for size in product((w - 1, w, w + 1), (h - 1, h, h + 1)):
        if all(size) and size != (w, h):
            resized = shape_from_mask(old.class_id, cv2.resize(old.mask.view(np.uint8), size) > 0)
            if np.array_equal(resized.mask, new.mask):
                return True
    return False


def _box_around(shapes: Sequence[Shape], margin: int) -> _Box:
    """Return (top, left, bottom, right) around shapes and a margin. At least one shape must have pixels."""
    boxes = np.array([shape.box for shape in shapes if shape.mask.size], np.int64).reshape(-1, 4)
    top, left = (boxes[:, :2].min(axis=0) - margin).tolist()
    bottom, right = (boxes[:, 2:].max(axis=0) + margin).tolist()
    return top, left, bottom, right
