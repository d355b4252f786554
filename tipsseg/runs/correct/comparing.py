"""Old labels and corrections -> new labels, in which nothing moves that nobody changed.

Formats of objects do not hold all that a mask does: polygons are near their pixels, small objects are left out, and there is no
"ignored". And tools redraw what they were given: they round corners, fill holes, drop what is thin. So each object of a correction
is compared with the objects that the format shows of the old labels. One that was not edited keeps its old pixels; of one that
was, the pixels change that the edit is about. Only the whole of a source shows whether it redraws at all, so both ways are open
until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.formats.reading.found import Whole
from tipsseg.regions.components import components
from tipsseg.regions.objects import LabelledObject
from tipsseg.regions.redrawing import MOVED, fill_holes, find_edits, is_lost, is_thin, tool_variants
from tipsseg.regions.shapes import Shape, shape_from_mask, shape_from_polygons
from tipsseg.types import BACKGROUND, LabelArray

#: From this IoU on, an object of a correction is taken for an object of the old labels that was changed.
_SAME_OBJECT = 0.5

#: What corners are shares of, and with how many decimals, in formats that write them so.
_ROUNDED = {"yolo": (1, 6), "label-studio": (100, 5)}

#: Background around two objects that are compared.
_MARGIN = 4

_Box = tuple[int, int, int, int]


@dataclass(slots=True, eq=False)
class _Pairs:
    """Which object of a correction is which of the old ones."""

    partners: list[int | None]
    free: dict[int, None]

    def join(self, place: int, number: int) -> None:
        self.partners[place] = number
        del self.free[number]


class Compared:
    """The objects of a correction beside those of the old labels.

    Attributes:
        old: [H, W], the old labels.
        before: The old objects, as the format of the correction shows them.
        shapes: The objects of the correction.
        partners: For each of these the number of the old one that it is, edited or not; None for one that was not there.
        same: The numbers of the old objects that came back as they were.
        undrawn: The numbers of those that surely nobody edited: only the box came back, or they were stretched by a pixel.
        redrawn: The numbers of those that are as a tool redraws them, or are so thin that tools drop them.
        parts: The places of objects that are a part of a redrawn one.
        edited: By their places, the edited objects without what a tool redrew of them.
    """

    def __init__(
        self, old: LabelArray, before: Sequence[Shape], shapes: Sequence[Shape], *, exact: bool = False
    ) -> None:
        """Compare; `exact` takes no object for redrawn. Raises ValueError for a box without pixels of no old object."""
        self._exact = exact
        self.old, self.before, self.shapes = old, before, shapes
        pairs = _Pairs([None] * len(shapes), dict.fromkeys(range(len(before))))
        self.partners = pairs.partners
        self.same, self.redrawn, self.undrawn = set[int](), set[int](), set[int]()
        self.parts: set[int] = set()
        self.edited: dict[int, Shape] = {}
        self._pair_alike(pairs)
        if pairs.free or None in pairs.partners:
            self._pair_overlapping(pairs)
        for place, number in enumerate(self.partners):
            if number is not None and number not in self.same and not exact:
                self._judge(place, number)
        if pairs.free or None in pairs.partners:
            self._pair_rest(pairs)

    @property
    def tells(self) -> bool:
        """Whether it makes a difference if the source writes objects exactly."""
        return bool(self.redrawn or self.parts or self.edited or self.undrawn)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to take where objects may have been redrawn."""
        stayed = self.same | self.undrawn | self.redrawn
        new = (place for place, number in enumerate(self.partners) if number is None)
        return len(stayed) == len(self.before) and not self.edited and self.parts.issuperset(new)

    @cached_property
    def owners(self) -> NDArray[np.int32]:
        """[H, W], the number of the old object that each pixel belongs to; -1 for pixels of none."""
        return _owners(self.old, self.before)

    @cached_property
    def _pixels(self) -> Callable[[int], Shape]:
        """Return what gives the old pixels of an object by its number."""
        flat = self.owners.reshape(-1)
        places = np.flatnonzero(flat >= 0)
        places = places[np.argsort(flat[places], kind="stable")]
        ends = np.searchsorted(flat[places], np.arange(len(self.before) + 1))

        def pixels(number: int) -> Shape:
            y, x = np.divmod(places[ends[number] : ends[number + 1]], self.old.shape[1])
            if not len(y):
                return replace(self.before[number], mask=np.zeros((0, 0), np.bool_))
            mask = np.zeros((int(np.ptp(y)) + 1, int(np.ptp(x)) + 1), np.bool_)
            mask[y - y.min(), x - x.min()] = True
            return Shape(self.before[number].class_id, int(y.min()), int(x.min()), mask)

        return pixels

    def changed(self, place: int, number: int) -> Shape:
        """Return an edited object whole: its old pixels decide where its old and its new shape agree, else the new shape does."""
        shape, before, pixels = self.shapes[place], self.before[number], self._pixels(number)
        box = _around((shape, before, pixels), 0)
        new, old = shape.within(box), before.within(box)
        return shape_from_mask(shape.class_id, np.where(new == old, pixels.within(box), new), *box[:2])

    # ---- which is which ----

    def _pair_alike(self, pairs: _Pairs) -> None:
        """Pair objects of the same pixels, of the same class if there is one."""
        by_pixels: dict[tuple[object, ...], list[int]] = {}
        for number, shape in enumerate(self.before):
            by_pixels.setdefault(_key(shape), []).append(number)
        for place, shape in enumerate(self.shapes):
            alike = [number for number in by_pixels.get(_key(shape), []) if number in pairs.free]
            if alike and not shape.box_only:
                number = min(alike, key=lambda each: self.before[each].class_id != shape.class_id)
                pairs.join(place, number)
                if self.before[number].class_id == shape.class_id:
                    self.same.add(number)

    def _pair_overlapping(self, pairs: _Pairs) -> None:
        found = []
        wholes = {number: _filled(self.before[number]) for number in pairs.free}
        for place, number in self._meeting(pairs, 0):
            shape = self.shapes[place]
            if shape.box_only:
                continue
            iou = max(shape.iou(self.before[number]), shape.iou(wholes[number]))
            if iou >= _SAME_OBJECT:
                found.append((-iou, number, place))
        for _, number, place in sorted(found):
            if self.partners[place] is None and number in pairs.free:
                pairs.join(place, number)

    def _pair_rest(self, pairs: _Pairs) -> None:
        """Pair thin objects of which next to nothing came back, boxes, and objects in several parts."""
        thin = {number for number in pairs.free if not self._exact and is_thin(self._pixels(number).mask)}
        for place, number in self._meeting(pairs, 1):
            shape = self.shapes[place]
            if self.partners[place] is None and number in pairs.free and shape.class_id == self.before[number].class_id:
                if shape.box_only:
                    if shape.box_distance(self.before[number]) <= MOVED:
                        pairs.join(place, number)
                        self.undrawn.add(number)
                elif number in thin and self._edits(shape, number) is None:
                    pairs.join(place, number)
                    self.redrawn.add(number)
        for place, shape in enumerate(self.shapes):
            if shape.box_only and self.partners[place] is None:
                h, w = shape.mask.shape
                raise ValueError(
                    f"a box without a polygon, {w} x {h} pixels at x {shape.x}, y {shape.y}: a box alone says nothing of pixels"
                )
        if self._exact:
            return
        self._find_parts()
        self.redrawn.update(number for number in pairs.free if is_lost(self._pixels(number).mask))

    def _meeting(self, pairs: _Pairs, margin: int) -> Iterator[tuple[int, int]]:
        """Yield places and numbers without a partner whose boxes meet, or are nearer than the margin."""
        numbers = np.array(list(pairs.free), np.intp)
        boxes = np.array([self.before[number].box for number in pairs.free], np.int64).reshape(-1, 4)
        for place, shape in enumerate(self.shapes):
            if self.partners[place] is None and shape.mask.size:
                top, left, bottom, right = shape.box
                meet = (boxes[:, :2] < (bottom + margin, right + margin)) & (
                    boxes[:, 2:] > (top - margin, left - margin)
                )
                yield from ((place, number) for number in numbers[meet.all(axis=1)].tolist())

    def _find_parts(self) -> None:
        """Find new objects that lie within a redrawn one, or within the bounds around it."""
        new = [
            place
            for place, shape in enumerate(self.shapes)
            if self.partners[place] is None and not shape.box_only and shape.mask.size
        ]
        boxes = np.array([self.shapes[place].box for place in new], np.int64).reshape(-1, 4)
        for number in self.redrawn if new else ():
            pixels = self._pixels(number)
            top, left, bottom, right = _around((self.before[number], pixels), int(MOVED))
            within = (boxes[:, :2] >= (top, left)) & (boxes[:, 2:] <= (bottom, right))
            near = [new[at] for at in np.flatnonzero(within.all(axis=1))]
            near = [place for place in near if self.shapes[place].class_id == pixels.class_id]
            if near:
                box = (top, left, bottom, right)
                away = cv2.distanceTransform((~pixels.within(box)).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                self.parts.update(place for place in near if (away[self.shapes[place].within(box)] <= MOVED).all())

    # ---- what was edited ----

    def _judge(self, place: int, number: int) -> None:
        shape, pixels = self.shapes[place], self._pixels(number)
        if shape.class_id == pixels.class_id and _is_stretched(pixels, shape):
            self.undrawn.add(number)
            return
        found = self._edits(shape, number)
        if found is None and shape.class_id == self.before[number].class_id:
            (self.same if shape.same_pixels(pixels) else self.redrawn).add(number)
        elif found is None:
            self.edited[place] = replace(pixels, class_id=shape.class_id)
        else:
            box = _around((shape, self.before[number], pixels), _MARGIN)
            self.edited[place] = shape_from_mask(
                shape.class_id, np.where(found, shape.within(box), pixels.within(box)), *box[:2]
            )

    def _edits(self, shape: Shape, number: int) -> NDArray[np.bool_] | None:
        """Return the pixels where a shape is not as a tool redraws an old object, in the box around both; None: nowhere."""
        pixels, written = self._pixels(number), self.before[number]
        box = _around((shape, written, pixels), _MARGIN)
        new = shape.within(box)
        fewest: NDArray[np.bool_] | None = None
        for old in (pixels, written)[: 1 if pixels.same_pixels(written) else 2]:
            for look in tool_variants(old.within(box), new):
                found = find_edits(look, new)
                if found is None:
                    return None
                if fewest is None or np.count_nonzero(found) < np.count_nonzero(fewest):
                    fewest = found
        return fewest


def written_shapes(objects: Iterable[LabelledObject], name: str, size: tuple[int, int]) -> tuple[Shape, ...]:
    """Return objects of an image of `size` (height, width) as the format of that name writes them: by pixels, or by polygons."""
    if name == "coco":
        return tuple(Shape(each.region.class_id, *each.region.box[:2], each.region.mask) for each in objects)
    whole, decimals = _ROUNDED.get(name, (None, 0))
    sides = np.array(size[::-1], np.float64)
    shapes = []
    for each in objects:
        rings = [ring[:, ::-1] for ring in each.outline.rings]  # [K, 2] (x, y)
        if whole is not None:
            rings = [np.round(ring * whole / sides, decimals) * (sides / whole) for ring in rings]
        # An object in several parts is one in COCO, and as many elsewhere.
        parts = [rings] if name == "coco-polygon" else [[ring] for ring in rings]
        shapes += [shape_from_polygons(each.region.class_id, part, size) for part in parts]
    return tuple(shapes)


def take_whole(old: LabelArray, new: Whole, ignored: int) -> LabelArray:
    """Return the new labels [H, W], if a correction says the label of every pixel; `ignored` is the id of ignored pixels."""
    labels = new.labels.astype(np.uint8) if old.dtype == np.uint8 else new.labels.astype(np.uint16)
    if not new.ignores:
        labels[(old == ignored) & (labels == BACKGROUND)] = ignored
    return labels


def compare_whole(old: LabelArray, new: LabelArray, ignored: int) -> Compared:
    """Compare the connected regions of two label maps [H, W], without what fills a hole of a region that was only redrawn.

    `ignored` is the id of ignored pixels in the old one.
    """
    counted = old.copy()
    counted[old == ignored] = BACKGROUND
    before = _regions(counted)
    compared = Compared(old, before, _regions(new))
    labels = new.copy()
    for number in compared.redrawn:
        shape = before[number]
        hole = fill_holes(shape.mask) & ~shape.mask & (labels[shape.place] == shape.class_id)
        labels[shape.place][hole] = old[shape.place][hole]
    return compared if np.array_equal(labels, new) else Compared(old, before, _regions(labels))


def _regions(labels: LabelArray) -> list[Shape]:
    return [Shape(each.class_id, *each.box[:2], each.mask) for each in components(labels, int(labels.max()))]


def paint(compared: Compared, *, exact: bool) -> LabelArray:
    """The new labels of an image, where a correction lists objects.

    Args:
        compared: The objects of the correction and the old ones.
        exact: Whether the source writes objects exactly; else one that tools may have redrawn stays as it was.

    Returns:
        [H, W]: without the objects that are gone, and with those that are new or were changed, painted in the order of the file. A
        new one lies below those that stayed and come later, a changed one above all that stayed. What neither had stays as it was.
    """
    labels = compared.old.copy()
    stayed = compared.same | compared.undrawn | (set() if exact else compared.redrawn)
    partners = compared.partners
    if len(stayed) == len(compared.before) and stayed.issuperset(partners):
        return labels
    # By the owners of pixels; the last, of no one's pixels, is that of number -1.
    gone = np.ones(len(compared.before) + 1, np.bool_)
    gone[[*stayed, -1]] = False
    labels[gone[compared.owners]] = BACKGROUND
    places = np.full(len(gone), -1)
    for place, partner in enumerate(partners):
        if partner in stayed:
            places[partner] = place
    for place, (shape, partner) in enumerate(zip(compared.shapes, partners, strict=True)):
        if partner is None and (exact or place not in compared.parts):
            above = places[compared.owners[shape.place]] < place
            labels[shape.place][shape.mask & above] = shape.class_id
        elif partner is not None and partner not in stayed:
            changed = compared.changed(place, partner) if exact else compared.edited[place]
            labels[changed.place][changed.mask] = changed.class_id
    return labels


def _key(shape: Shape) -> tuple[object, ...]:
    return shape.y, shape.x, shape.mask.shape, shape.mask.tobytes()


def _is_stretched(old: Shape, new: Shape) -> bool:
    """Whether a shape is the old one stretched to a box that is off by a pixel, as FiftyOne does with the boxes of masks.

    It must show inside: a box that is smaller by a pixel may be an edit.
    """
    if not new.mask.size or not old.mask.size or old.box_distance(new) > 2:
        return False
    box = _around((old, new), 0)
    if not (old.within(box) != new.within(box))[1:-1, 1:-1].any():
        return False
    h, w = old.mask.shape
    for size in product((w - 1, w, w + 1), (h - 1, h, h + 1)):
        if all(size) and size != (w, h):
            found = shape_from_mask(old.class_id, cv2.resize(old.mask.view(np.uint8), size) > 0)
            if np.array_equal(found.mask, new.mask):
                return True
    return False


def _filled(shape: Shape) -> Shape:
    return replace(shape, mask=fill_holes(shape.mask))


def _around(shapes: Sequence[Shape], margin: int) -> _Box:
    """Return (top, left, bottom, right) of the box around shapes and a margin; at least one of them has pixels."""
    boxes = np.array([shape.box for shape in shapes if shape.mask.size], np.int64).reshape(-1, 4)
    top, left = (boxes[:, :2].min(axis=0) - margin).tolist()
    bottom, right = (boxes[:, 2:].max(axis=0) + margin).tolist()
    return top, left, bottom, right


def _owners(old: LabelArray, before: Sequence[Shape]) -> NDArray[np.int32]:
    """Return the number of the object that each pixel belongs to [H, W]; -1 for pixels of none.

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
