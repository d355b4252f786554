"""Find what a person changed in the objects that tipsseg wrote, and paint it, so that only edited pixels change.

Formats of objects store less than a mask: polygons only approximate pixels, small objects are omitted, and ignored pixels are
missing. Annotation tools also redraw objects: they round corners, fill holes and drop thin parts. So the pixels of a class are
compared piece by piece with what the format stores of them: a piece that nobody edited keeps its old pixels, and an edited piece
changes only where it was edited. Only the source as a whole shows whether its tool redraws objects, so a comparison allows for both
cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import components
from tipsseg.regions.objects import ancestors, object_regions, split_levels
from tipsseg.regions.polygons import MOVED, fill_holes, find_edits, is_lost, tool_variants
from tipsseg.regions.shapes import Shape, shape_from_mask
from tipsseg.types import BACKGROUND, LabelArray, LabelClass

#: The minimum IoU of an object with the object of another class that it was before.
_SAME_OBJECT = 0.5

#: The maximum distance of the pixels of an object from its polygon.
_RIM = 8

#: Background pixels around a piece, which `find_edits` needs.
_MARGIN = 4

_Mask = NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class _Piece:
    """Pixels of a class that are connected in the old labels, as the format stores them, or in the source. Masks are [h, w].

    Attributes:
        class_id: The class.
        place: Their rows and columns in labels with a margin around the image.
        old: The pixels in the old labels.
        written: The pixels as the format stores them.
        new: The pixels in the source.
        edits: The pixels that a person edited in a source that redraws objects; None if the tool explains all differences.
        renamed: True if `new` has the pixels of an old object of another class.
    """

    class_id: int
    place: tuple[slice, slice]
    old: _Mask
    written: _Mask
    new: _Mask
    edits: _Mask | None = None
    renamed: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the place, in the image."""
        rows, columns = self.place
        return rows.start - _MARGIN, columns.start - _MARGIN, rows.stop - _MARGIN, columns.stop - _MARGIN

    def judged(self, *, came_back: bool) -> _Piece:
        """Return the piece with its edits. `came_back` is True if the source has an object without pixels there."""
        if not self.new.any() and not came_back:
            self.edits = None if is_lost(self.old) else self.old
        elif not self.old.any():
            self.edits = self.new
        else:
            befores = (self.old, self.written)[: 1 if np.array_equal(self.old, self.written) else 2]
            found = [find_edits(each, self.new) for before in befores for each in tool_variants(before, self.new)]
            edits = [each for each in found if each is not None]
            self.edits = None if len(edits) < len(found) else min(edits, key=np.count_nonzero)
        return self

    def edited(self, *, exact: bool) -> _Mask:
        """Return the edited pixels; `exact` is True if the source writes objects exactly."""
        if exact:
            return self.new != self.written
        return np.zeros_like(self.new) if self.edits is None else self.edits


class Comparison:
    """The objects of a correction, compared with the old labels, class by class.

    Attributes:
        labels: [H, W], the old labels.
        shapes: The objects in the correction.
        same: The number of pieces that came back unchanged.
        boxes: Boxes without polygons that match no old object. They are new objects that fill the box.
        untouched: Old objects that came back only as a box, without pixels, or in a box that is off by a pixel.
    """

    def __init__(self, labels: LabelArray, before: Sequence[Shape], shapes: Sequence[Shape]) -> None:
        returned = _returned_by_tools(before, shapes)
        self.labels, self.same, self.untouched = labels, 0, list(returned.values())
        self.shapes = [returned.get(number, shape) for number, shape in enumerate(shapes)]
        self.boxes = [shape for shape in self.shapes if shape.box_only and shape.mask.size]
        classes = sorted({shape.class_id for shape in (*before, *self.shapes)})
        self._pieces = [piece for class_id in classes for piece in self._differing(class_id, before)]
        self._renamed = list(self._rename())

    def _differing(self, class_id: int, before: Sequence[Shape]) -> Iterator[_Piece]:
        """Yield the pieces of a class that did not come back as they were written."""
        height, width = self.labels.shape
        layers = np.zeros((3, height + 2 * _MARGIN, width + 2 * _MARGIN), np.bool_)  # old, written, new
        inner = layers[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        if class_id != BACKGROUND:  # objects of the background, which some tools draw, were none before
            inner[0] = self.labels == class_id
        for layer, shapes in ((inner[1], before), (inner[2], self.shapes)):
            for shape in shapes:
                if shape.class_id == class_id:
                    layer[shape.place] |= shape.mask
        empty = [each for each in self.shapes if each.class_id == class_id and not each.mask.size]
        number, parts, stats, _ = cv2.connectedComponentsWithStats(layers.max(0).view(np.uint8), connectivity=8)
        for part in range(1, number):
            x, y, w, h = stats[part, :4].tolist()
            place = slice(y - _MARGIN, y + h + _MARGIN), slice(x - _MARGIN, x + w + _MARGIN)
            old, written, new = layers[:, place[0], place[1]] & (parts[place] == part)
            if np.array_equal(written, new):
                self.same += bool(new.any())
            else:
                came_back = any(y <= each.y + _MARGIN < y + h and x <= each.x + _MARGIN < x + w for each in empty)
                yield _Piece(class_id, place, old, written, new).judged(came_back=came_back)

    def _rename(self) -> Iterator[_Piece]:
        """Yield removed pieces that came back as another class. The new pieces get their pixels."""
        added = [piece for piece in self._pieces if not piece.old.any()]
        boxes = _boxes_of(added)
        for gone in (piece for piece in self._pieces if not piece.new.any()):
            for piece in (added[number] for number in _overlapping(gone, boxes)):
                if not piece.renamed and _are_one(gone, piece):
                    piece.place, piece.new, piece.edits = gone.place, gone.old, gone.old
                    piece.old = piece.written = np.zeros_like(gone.old)
                    gone.edits, piece.renamed = gone.old, True
                    yield gone
                    break

    @property
    def redrawn(self) -> list[Shape]:
        """The old objects that differ only as far as tools redraw objects, or are missing but so thin that tools drop them."""
        pieces = [piece for piece in self._pieces if piece.edits is None and piece.old.any()]
        return [shape_from_mask(piece.class_id, piece.old, *piece.box[:2]) for piece in pieces]

    @property
    def returned(self) -> int:
        """The number of redrawn objects that are not missing."""
        return sum(piece.edits is None and bool(piece.new.any()) for piece in self._pieces)

    @property
    def depends_on_source(self) -> bool:
        """Return True if the new labels depend on whether the source writes objects exactly."""
        return bool(self._pieces or self.untouched)

    def changed_pixels(self, *, exact: bool) -> _Mask:
        """Return the pixels [H, W] of objects that a person changed."""
        return self._cover(piece for piece in self._pieces if piece.edited(exact=exact).any())

    def renamed_pixels(self) -> _Mask:
        """Return the pixels [H, W] of old objects that have another class now."""
        return self._cover(self._renamed)

    def _cover(self, pieces: Iterable[_Piece]) -> _Mask:
        covered = np.zeros([side + 2 * _MARGIN for side in self.labels.shape], np.bool_)
        for piece in pieces:
            covered[piece.place] |= piece.old
        return covered[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]

    def paint(self, *, exact: bool) -> LabelArray:
        """Return the labels [H, W] after the correction.

        Removed objects become background. New and edited objects are painted in the order of the file: a new object below
        unchanged objects that come later in the file, an edited object above all unchanged objects. Other pixels keep their labels.

        `exact` is True if the source writes objects exactly. Otherwise objects that a tool may have redrawn stay unchanged.
        """
        changed = [(piece, edits) for piece in self._pieces if (edits := piece.edited(exact=exact)).any()]
        padded = np.pad(self.labels, _MARGIN)
        for piece, edits in changed:
            here = padded[piece.place]
            here[edits & ~piece.new & (here == piece.class_id)] = BACKGROUND
        position = np.full(padded.shape, -1, np.int32)  # of the unchanged object in the file
        for number, shape in enumerate(self.shapes):
            y, x, h, w = shape.y + _MARGIN, shape.x + _MARGIN, *shape.mask.shape
            place = slice(y, y + h), slice(x, x + w)
            position[place][shape.mask & (padded[place] == shape.class_id)] = number
        _reach_rims(position, cast(LabelArray, padded))
        # What the polygon of an object covered beside the object is no part of what that object becomes.
        beside = np.zeros_like(padded, np.bool_)
        for piece, _ in changed if exact else ():
            beside[piece.place] |= piece.written & ~piece.new & ~piece.old
        boxes = _boxes_of(self.shapes)
        turns = [(number, piece, edits) for piece, edits in changed for number in _overlapping(piece, boxes)]
        for number, piece, edits in sorted(turns, key=lambda turn: turn[0]):  # stable
            shape, here = self.shapes[number], padded[piece.place]
            if shape.class_id == piece.class_id:
                drawn = edits & piece.new & ~beside[piece.place] & (_inside(shape, piece) | piece.renamed)
                if not piece.old.any():
                    drawn &= position[piece.place] < number
                here[drawn] = piece.class_id
        if exact:
            for piece, _ in changed:
                _follow(cast(LabelArray, padded[piece.place]), piece)
        return cast(LabelArray, np.ascontiguousarray(padded[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]))


def _boxes_of(shapes: Iterable[Shape | _Piece]) -> NDArray[np.int64]:
    """Return boxes [N, 4]: top, left, bottom, right."""
    return np.array([shape.box for shape in shapes], np.int64).reshape(-1, 4)


def _overlapping(piece: _Piece, boxes: NDArray[np.int64]) -> list[int]:
    """Return the indices of the boxes [N, 4] that overlap the place of a piece."""
    top, left, bottom, right = piece.box
    near = (boxes[:, :2] < (bottom, right)) & (boxes[:, 2:] > (top, left))
    return [int(index) for index in np.flatnonzero(near.all(axis=1))]


def _inside(shape: Shape, piece: _Piece) -> _Mask:
    """Return the pixels of a shape at the place of a piece, whose boxes overlap."""
    starts = piece.box[:2]
    top, left = np.maximum(starts, shape.box[:2]).tolist()
    bottom, right = np.minimum(piece.box[2:], shape.box[2:]).tolist()
    inside = np.zeros_like(piece.new)
    own = shape.mask[top - shape.y : bottom - shape.y, left - shape.x : right - shape.x]
    inside[top - starts[0] : bottom - starts[0], left - starts[1] : right - starts[1]] = own
    return inside


def _are_one(gone: _Piece, piece: _Piece) -> bool:
    """Return True if a removed piece came back as a piece of another class. Their places overlap."""
    start, stop = np.minimum(gone.box[:2], piece.box[:2]), np.maximum(gone.box[2:], piece.box[2:])
    old, written, new = np.zeros((3, *(stop - start)), np.bool_)
    for whole, box, mask in (
        (old, gone.box, gone.old),
        (written, gone.box, gone.written),
        (new, piece.box, piece.new),
    ):
        y, x = np.subtract(box[:2], start).tolist()
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    if np.count_nonzero(old & new) < _SAME_OBJECT * np.count_nonzero(old | new):
        return False
    return np.array_equal(written, new) or find_edits(old, new) is None


def _follow(labels: LabelArray, piece: _Piece) -> None:
    """Give pixels outside the polygon of an edited object the label of the nearest pixel inside, in place: they go with it."""
    rim, core = piece.old & ~piece.written & ~piece.new & (labels == piece.class_id), piece.old & piece.written
    if rim.any() and core.any():
        labels[rim] = labels.reshape(-1)[_nearest(core)[1][rim]]


def _reach_rims(position: NDArray[np.int32], labels: LabelArray) -> None:
    """Give pixels of objects outside their polygons the position [H, W] of the nearest pixel inside of their class, in place."""
    rims = (position < 0) & (labels != BACKGROUND)
    for class_id in np.unique(labels[rims]).tolist():
        core, rim = (position >= 0) & (labels == class_id), rims & (labels == class_id)
        if core.any():
            distance, pixels = _nearest(core)
            rim &= distance <= _RIM
            position[rim] = position.reshape(-1)[pixels[rim]]


def _nearest(core: _Mask) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the distance of each pixel from the nearest pixel of a mask, and that pixel, both [H, W]."""
    distance, nearest = cv2.distanceTransformWithLabels(
        (~core).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    pixel_of = np.zeros(int(nearest.max()) + 1, np.intp)
    pixel_of[nearest[core]] = np.flatnonzero(core)
    return cast(NDArray[np.float32], distance), pixel_of[nearest]


def _returned_by_tools(before: Sequence[Shape], shapes: Sequence[Shape]) -> dict[int, Shape]:
    """Return the old objects that came back as a box, or in a box that is off by a pixel, by index in `shapes`.

    FiftyOne rounds boxes down.
    """
    identical = {(old.class_id, old.box, old.mask.tobytes()) for old in before}
    by_class: dict[int, list[Shape]] = {}
    for old in before:
        by_class.setdefault(old.class_id, []).append(old)
    boxes = {class_id: np.array([old.box for old in olds], np.int64) for class_id, olds in by_class.items()}
    moved = {}
    for new, shape in enumerate(shapes):
        is_same = (shape.class_id, shape.box, shape.mask.tobytes()) in identical
        if shape.class_id in by_class and (shape.box_only or (shape.mask.size and not is_same)):
            near = np.flatnonzero((abs(boxes[shape.class_id] - shape.box) <= MOVED).all(axis=1))
            olds = (by_class[shape.class_id][index] for index in near.tolist())
            if (found := next((old for old in olds if shape.box_only or _is_moved(old, shape)), None)) is not None:
                moved[new] = found
    return moved


def _is_moved(old: Shape, new: Shape) -> bool:
    """Return True if the new shape is the old one at a distance of one pixel, or resized to a box that is off by a pixel.

    If it is resized, the shapes must also differ where both boxes overlap, because a box that is one pixel smaller may be an edit.
    """
    if not old.mask.size:
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


def _box_around(shapes: Sequence[Shape], margin: int) -> tuple[int, int, int, int]:
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
    for shape in found.redrawn:
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
    unchanged = (old != BACKGROUND) & ~found.changed_pixels(exact=exact)
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
