"""Compare the objects of a correction with those that tipsseg wrote, and paint the difference, so that only edited pixels change.

Formats of objects store less than a mask: polygons only approximate pixels, small objects are omitted, and ignored pixels are
missing. Annotation tools also redraw objects: they round corners, fill holes and drop thin parts. Therefore, an object that nobody
edited keeps its old pixels, and an edited object changes only where it was edited. Only the source as a whole shows whether its
tool redraws objects, so a comparison allows for both cases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import components
from tipsseg.regions.objects import ancestors, object_regions, split_levels
from tipsseg.regions.polygons import MOVED, fill_holes, find_edits, is_lost, is_thin, tool_variants
from tipsseg.regions.shapes import Shape, shape_from_mask
from tipsseg.types import BACKGROUND, LabelArray, LabelClass

#: The minimum IoU of an edited object with its old object.
_SAME_OBJECT = 0.5

#: The minimum share of a new object's pixels inside the outline of the old object that it is a piece of.
_INSIDE = 0.95

#: Background pixels around two compared objects, which `find_edits` needs.
_MARGIN = 4

_Box = tuple[int, int, int, int]


class Comparison:
    """The objects of a correction, paired with old objects.

    `new` is an index into `shapes`, `old` an index into `before`.

    Attributes:
        labels: [H, W], the old labels.
        before: The connected parts of the old objects, as the correction's format writes them.
        shapes: The connected parts of the objects in the correction.
        owners: [H, W], the old object of each pixel; -1 outside all objects.
        partners: The old object of each object in the correction, edited or not; None for a new object.
        same: Old objects that came back unchanged.
        untouched: Unedited old objects that came back only as a box, without pixels, or in a box that is off by a pixel.
        redrawn: Old objects that differ only as far as tools redraw objects, or are missing but so thin that tools drop them.
        parts: New objects that are part of a redrawn object.
        edited: Edited objects without the tool's own changes, by `new`.
    """

    def __init__(self, labels: LabelArray, before: Sequence[Shape], shapes: Sequence[Shape]) -> None:
        moved = _moved_by_tools(before, shapes)
        split = [
            (part, new in moved)
            for new, shape in enumerate(shapes)
            for part in connected_parts([moved.get(new, shape)])
        ]
        before, shapes = list(connected_parts(before)), [part for part, _ in split]  # tools write parts as objects
        self.labels, self.before, self.shapes = labels, before, shapes
        self._moved = [each for _, each in split]
        self.partners: list[int | None] = [None] * len(shapes)
        self.same, self.untouched, self.redrawn, self.parts = set[int](), set[int](), set[int](), set[int]()
        self.edited: dict[int, Shape] = {}
        self._free = dict.fromkeys(range(len(before)))
        self._pair_identical()
        self._pair_overlapping(renamed=False)
        self._pair_remains()
        self._pair_overlapping(renamed=True)  # last: a tool may draw a hole as an object, over the object in it
        for new, old in enumerate(self.partners):
            if old is not None and old not in self.same | self.untouched | self.redrawn:
                self._judge(new, old)
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

    def unchanged(self, *, exact: bool) -> set[int]:
        """Return the old objects that stay as they are; see `paint` for `exact`."""
        return self.same | self.untouched | (set() if exact else self.redrawn)

    def unchanged_pixels(self, *, exact: bool) -> NDArray[np.bool_]:
        """Return the pixels [H, W] of objects that stay as they are."""
        kept = np.zeros(len(self.before) + 1, np.bool_)
        kept[list(self.unchanged(exact=exact))] = True
        kept[-1] = False  # pixels outside all objects: their owner is -1
        return kept[self.owners]

    def renamed_pixels(self) -> NDArray[np.bool_]:
        """Return the pixels [H, W] of old objects that have another class now."""
        renamed = np.zeros(len(self.before) + 1, np.bool_)
        for new, old in enumerate(self.partners):
            if old is not None and self.before[old].class_id != self.shapes[new].class_id:
                renamed[old] = True
        return renamed[self.owners]

    def paint(self, *, exact: bool) -> LabelArray:
        """Return the labels [H, W] after the correction.

        Removed objects become background. New and edited objects are painted in the order of the file: a new object below
        unchanged objects that come later in the file, an edited object above all unchanged objects. Other pixels keep their labels.

        `exact` is True if the source writes objects exactly. Otherwise objects that a tool may have redrawn stay unchanged.
        """
        labels = self.labels.copy()
        unchanged = self.unchanged(exact=exact)
        if len(unchanged) == len(self.before) and unchanged.issuperset(self.partners):
            return labels
        # One extra entry, for pixels outside all objects: their owner is -1, which indexes the last entry.
        removed = np.ones(len(self.before) + 1, np.bool_)
        removed[[*unchanged, -1]] = False
        gone = removed[self.owners]
        labels[gone] = BACKGROUND
        outside = np.zeros_like(gone)
        outside[gone] = self._nearest[gone] != np.flatnonzero(gone)
        position = np.full(len(self.before) + 1, -1)  # index of each unchanged object in the file
        for new, old in enumerate(self.partners):
            if old in unchanged:
                position[old] = new
        for new, (shape, old) in enumerate(zip(self.shapes, self.partners, strict=True)):
            if old in unchanged or not shape.area or (new in self.parts and not exact):
                continue
            piece_of = self._piece_of(shape, removed) if old is None else old
            edited = None if exact else self.edited.get(new)
            if edited is None:
                edited = shape if piece_of is None else self._whole_edit(new, piece_of)
            box = _box_around((edited, shape), 0)
            place = slice(box[0], box[2]), slice(box[1], box[3])
            # Of the pixels that its outline lacks, those inside the old outline are the object's, unless another one took them.
            own = shape.within(box) | ~outside[place] & (labels[place] == BACKGROUND)
            if old is None:
                own &= position[self.owners[place]] < new
            labels[place][edited.within(box) & own] = edited.class_id
        # A pixel outside the polygon of its object follows the nearest pixel inside, to whichever piece that belongs now.
        outside &= labels == BACKGROUND
        labels[outside] = labels.reshape(-1)[self._nearest[outside]]
        return labels

    # ---- old pixels ----

    @property
    def owners(self) -> NDArray[np.int32]:
        return self._owned[0]

    @property
    def _nearest(self) -> NDArray[np.int32]:
        return self._owned[1]

    @cached_property
    def _owned(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return _owners_of(self.labels, self.before)

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

    def _pair(self, new: int, old: int) -> None:
        self.partners[new] = old
        del self._free[old]

    def _pair_identical(self) -> None:
        """Pair objects with the same pixels and class."""
        by_pixels: dict[tuple[object, ...], list[int]] = {}
        for old, shape in enumerate(self.before):
            by_pixels.setdefault((shape.class_id, shape.box, shape.mask.tobytes()), []).append(old)
        for new, shape in enumerate(self.shapes):
            alike = by_pixels.get((shape.class_id, shape.box, shape.mask.tobytes()))
            if alike and not shape.box_only:
                self._pair(new, alike[0])
                (self.untouched if self._moved[new] else self.same).add(alike.pop(0))

    def _pair_overlapping(self, *, renamed: bool) -> None:
        """Pair objects of the same class, or of different ones if `renamed`, by IoU, best pairs first."""
        candidates = []
        wholes = {old: replace(self.before[old], mask=fill_holes(self.before[old].mask)) for old in self._free}
        for new, old in self._neighbours(self._free, 0):
            shape, before = self.shapes[new], self.before[old]
            if not shape.box_only and (shape.class_id != before.class_id) == renamed:
                iou = max(shape.iou(before), shape.iou(wholes[old]))
                if iou >= _SAME_OBJECT:
                    candidates.append((-iou, old, new))
        for _, old, new in sorted(candidates):
            if self.partners[new] is None and old in self._free:
                self._pair(new, old)

    def _pair_remains(self) -> None:
        """Pair boxes with old objects that have the same box, and thin old objects with what a tool left of them."""
        thin = {old for old in self._free if is_thin(self._old_pixels(old).mask)}
        for new, old in self._neighbours(self._free, 1):
            shape, before = self.shapes[new], self.before[old]
            if self.partners[new] is not None or old not in self._free or shape.class_id != before.class_id:
                continue
            if shape.box_only and shape.box_distance(before) <= MOVED:
                self._pair(new, old)
                self.untouched.add(old)
            elif not shape.box_only and old in thin and self._edited_pixels(shape, old) is None:
                self._pair(new, old)
                (self.redrawn if shape.mask.size else self.untouched).add(old)

    def _find_parts(self) -> None:
        """Find new objects inside a redrawn object of their class, with a tolerance of `MOVED` pixels around it, and its holes."""
        for new, old in self._neighbours(self.redrawn, int(MOVED)):
            shape, pixels = self.shapes[new], self._old_pixels(old)
            if shape.class_id == pixels.class_id and not shape.box_only:
                box = _box_around((shape, pixels), _MARGIN)
                mask, drawn = pixels.within(box), shape.within(box)
                distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                if (distance[drawn] <= MOVED).all() or _is_hole(drawn, mask):
                    self.parts.add(new)

    def _neighbours(self, olds: Collection[int], margin: int) -> Iterator[tuple[int, int]]:
        """Yield unpaired objects with old ones (new, old) if their boxes overlap or are less than `margin` pixels apart."""
        indices = np.array([*olds], np.intp)
        boxes = np.array([self.before[old].box for old in olds], np.int64).reshape(-1, 4)
        for new, shape in enumerate(self.shapes):
            if self.partners[new] is None:
                top, left, bottom, right = shape.box
                near = (boxes[:, :2] < (bottom + margin, right + margin)) & (
                    boxes[:, 2:] > (top - margin, left - margin)
                )
                yield from ((new, old) for old in indices[near.all(axis=1)].tolist())

    # ---- edits ----

    def _judge(self, new: int, old: int) -> None:
        """Add a pair to `same`, `redrawn` or `edited`."""
        shape, pixels = self.shapes[new], self._old_pixels(old)
        edit = self._edited_pixels(shape, old)
        if edit is None and shape.class_id == pixels.class_id:
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
        edits = []
        for before in (pixels, written)[: 1 if pixels.same_pixels(written) else 2]:
            for variant in tool_variants(before.within(box), drawn):
                edit = find_edits(variant, drawn)
                if edit is None:
                    return None
                edits.append(edit)
        return min(edits, key=np.count_nonzero)

    def _piece_of(self, shape: Shape, removed: NDArray[np.bool_]) -> int | None:
        """Return the removed or edited old object whose outline contains a new object; None if there is none."""
        owners = self.owners[shape.place][shape.mask]
        owners = owners[removed[owners]]
        if shape.box_only or not owners.size:
            return None
        old = int(np.bincount(owners).argmax())
        box = _box_around((shape, self.before[old]), 0)
        inside = shape.within(box) & self.before[old].within(box)
        return old if np.count_nonzero(inside) >= _INSIDE * shape.area else None

    def _whole_edit(self, new: int, old: int) -> Shape:
        """Return an edited object of an exact source: its old pixels where the old and new shapes agree, else the new shape."""
        shape, before, pixels = self.shapes[new], self.before[old], self._old_pixels(old)
        box = _box_around((shape, before, pixels), 0)
        drawn, written = shape.within(box), before.within(box)
        return shape_from_mask(shape.class_id, np.where(drawn == written, pixels.within(box), drawn), *box[:2])


def _is_hole(drawn: NDArray[np.bool_], mask: NDArray[np.bool_]) -> bool:
    """Return True if a drawn object [h, w] is a hole of a mask, as tools draw it that store holes as objects."""
    _, holes = cv2.connectedComponents((fill_holes(mask) & ~mask).view(np.uint8), connectivity=4)
    numbers = np.bincount(holes[drawn])[1:]
    return bool(numbers.any()) and find_edits(holes == numbers.argmax() + 1, drawn) is None


def _moved_by_tools(before: Sequence[Shape], shapes: Sequence[Shape]) -> dict[int, Shape]:
    """Return the old objects that came back in a box that is off by a pixel, by index in `shapes`. FiftyOne rounds boxes down."""
    identical = {(old.class_id, old.box, old.mask.tobytes()) for old in before}
    by_class: dict[int, list[Shape]] = {}
    for old in before:
        by_class.setdefault(old.class_id, []).append(old)
    boxes = {class_id: np.array([old.box for old in olds], np.int64) for class_id, olds in by_class.items()}
    moved = {}
    for new, shape in enumerate(shapes):
        if (
            shape.mask.size
            and shape.class_id in by_class
            and (shape.class_id, shape.box, shape.mask.tobytes()) not in identical
        ):
            near = np.flatnonzero((abs(boxes[shape.class_id] - shape.box) <= 2).all(axis=1))
            olds = (by_class[shape.class_id][index] for index in near.tolist())
            if (found := next((old for old in olds if _is_moved(old, shape)), None)) is not None:
                moved[new] = found
    return moved


def _is_moved(old: Shape, new: Shape) -> bool:
    """Return True if the new shape is the old one at a distance of one pixel, or resized to a box that is off by a pixel.

    If it is resized, the shapes must also differ where both boxes overlap, because a box that is one pixel smaller may be an edit.
    """
    if not old.mask.size or new.box_only:
        return False
    if np.array_equal(old.mask, new.mask):
        return old.box_distance(new) == 1
    box = _box_around((old, new), 0)
    (top, left), (bottom, right) = np.maximum(old.box[:2], new.box[:2]), np.minimum(old.box[2:], new.box[2:])
    common = np.s_[top - box[0] : bottom - box[0], left - box[1] : right - box[1]]
    if not (old.within(box) != new.within(box))[common].any():
        return False
    h, w = old.mask.shape
    for size in product((w - 1, w, w + 1), (h - 1, h, h + 1)):
        if all(size) and size != (w, h):
            resized = shape_from_mask(old.class_id, cv2.resize(old.mask.view(np.uint8), size) > 0)
            if np.array_equal(resized.mask, new.mask):
                return True
    return False


def connected_parts(shapes: Iterable[Shape]) -> Iterator[Shape]:
    """Yield the connected parts of shapes, in their order."""
    for shape in shapes:
        if shape.box_only or not shape.mask.size:
            yield shape
            continue
        number, parts = cv2.connectedComponents(shape.mask.view(np.uint8), connectivity=8)
        if number == 2:
            yield shape
        else:
            yield from (shape_from_mask(shape.class_id, parts == part, shape.y, shape.x) for part in range(1, number))


def _box_around(shapes: Sequence[Shape], margin: int) -> _Box:
    """Return (top, left, bottom, right) around shapes and a margin. At least one shape must have pixels."""
    boxes = np.array([shape.box for shape in shapes if shape.mask.size], np.int64).reshape(-1, 4)
    top, left = (boxes[:, :2].min(axis=0) - margin).tolist()
    bottom, right = (boxes[:, 2:].max(axis=0) + margin).tolist()
    return top, left, bottom, right


def compare_masks(old: LabelArray, new: LabelArray, ignored: int) -> Comparison:
    """Compare the connected regions of two label maps [H, W], but not the holes that a tool filled, and what it covered there.

    `ignored` is the id of ignored pixels in `old`.
    """
    before = _regions(np.where(old == ignored, BACKGROUND, old))
    found, labels = Comparison(old, before, _regions(new)), new.copy()
    for shape in (before[index] for index in found.redrawn):
        filled = fill_holes(shape.mask) & ~shape.mask & (labels[shape.place] == shape.class_id)
        labels[shape.place][filled] = old[shape.place][filled]
    return found if np.array_equal(labels, new) else Comparison(old, before, _regions(labels))


def _regions(labels: LabelArray) -> list[Shape]:
    return [region.shape() for region in components(labels, int(labels.max()))]


# ---- parts of wholes ----


def join_levels(
    old: LabelArray, found: Sequence[Comparison], classes: Sequence[LabelClass], *, exact: bool
) -> LabelArray:
    """Return labels [H, W] from comparisons by depth (see `split_levels`): parts are above wholes, whatever the file's order.

    But a new object that a person drew over another whole covers the unchanged parts of that.
    """
    levels = [each.paint(exact=exact) for each in found]
    labels = levels[0].copy()
    for depth, before in enumerate(split_levels(old, classes)):
        if depth:
            now = levels[depth]
            inside = (labels == BACKGROUND) | (now != before)
            for above, comparison in zip(split_levels(now, classes), found[:depth], strict=False):
                inside |= (labels == above) | comparison.renamed_pixels()
            part = (now != BACKGROUND) & inside
            labels[part] = now[part]
    return labels


def return_parts(old: LabelArray, found: Comparison, classes: Sequence[LabelClass], *, exact: bool) -> LabelArray:
    """Return labels [H, W] from a comparison of objects that do not overlap.

    Unchanged parts are above wholes that a person drew over them. Deleted parts become their whole, unless that was deleted too.
    """
    labels, chains = found.paint(exact=exact), ancestors(classes)
    unchanged = found.unchanged_pixels(exact=exact)
    for above in list(split_levels(old, classes))[:-1]:
        covered = unchanged & (above != BACKGROUND) & (labels == above) & (labels != old)
        labels[covered] = old[covered]
    painted = labels.copy()
    families = {whole: [chain[-1] for chain in chains if whole in chain] for chain in chains for whole in chain[:-1]}
    for region in reversed(object_regions(old, classes)):
        family = families.get(region.class_id)
        if family is None:
            continue
        y, x, h, w = region.box
        place = slice(y, y + h), slice(x, x + w)
        deleted = region.mask & (labels[place] == BACKGROUND) & (old[place] != region.class_id)
        # What parts left of the whole shows whether it is still there, or the parts, if they left nothing.
        own = region.mask & (old[place] == region.class_id)
        left = region.mask & (painted[place] == region.class_id if own.any() else np.isin(labels[place], family))
        if deleted.any() and left.any():
            labels[place][deleted] = region.class_id
    return labels


# ---- the objects that tipsseg wrote ----


def _owners_of(labels: LabelArray, objects: Sequence[Shape]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the index of the object that each pixel belongs to, [H, W], and the nearest pixel inside its polygon, [H, W] flat.

    A pixel outside its object's polygon belongs to the nearest polygon of its class, if that polygon overlaps the connected region
    of the pixel. Both are -1 outside all objects.
    """
    owners, inner = np.full((2, *labels.shape), -1, np.int32)
    for class_id in dict.fromkeys(shape.class_id for shape in objects):
        own = (labels == class_id).view(np.uint8)
        inside = np.full(labels.shape, -1, np.int32)
        for index, shape in enumerate(objects):
            if shape.class_id == class_id:
                inside[shape.place][shape.mask] = index
        inside[own == 0] = -1
        _, regions = cv2.connectedComponents(own, connectivity=8)
        seeds = (inside < 0).astype(np.uint8)
        if seeds.all():
            continue
        _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        pixel_of_seed = np.zeros(int(nearest.max()) + 1, np.int32)
        pixel_of_seed[nearest[seeds == 0]] = np.flatnonzero(seeds == 0)
        reached = np.zeros(int(regions.max()) + 1, np.bool_)
        reached[regions[seeds == 0]] = True
        owned = (own > 0) & reached[regions]
        inner[owned] = pixel_of_seed[nearest[owned]]
        owners[owned] = inside.reshape(-1)[inner[owned]]
    return owners, inner
