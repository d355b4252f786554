"""Compute an image's new labels from its old labels and a correction."""

from __future__ import annotations

import numpy as np

from tipsseg.formats.corrections import PixelLabels
from tipsseg.regions.polygons import fill_holes
from tipsseg.runs.correct.comparing import Comparison
from tipsseg.runs.correct.old_objects import regions_of
from tipsseg.types import BACKGROUND, LabelArray


def compare_masks(old: LabelArray, new: LabelArray, ignored: int) -> Comparison:
    """Compare the connected regions of two label maps [H, W], ignoring holes that a tool filled.

    `ignored` is the id of ignored pixels in `old`.
    """
    scored = old.copy()
    scored[old == ignored] = BACKGROUND
    before = regions_of(scored)
    comparison = Comparison(old, before, regions_of(new))
    labels = new.copy()
    for index in comparison.redrawn:
        shape = before[index]
        hole = fill_holes(shape.mask) & ~shape.mask & (labels[shape.place] == shape.class_id)
        labels[shape.place][hole] = old[shape.place][hole]
    return comparison if np.array_equal(labels, new) else Comparison(old, before, regions_of(labels))


def copy_mask(old: LabelArray, new: PixelLabels, ignored: int) -> LabelArray:
    """Return the labels [H, W] of a corrected mask. Keep ignored pixels if the mask's format cannot store them."""
    labels = new.labels.astype(np.uint8) if old.dtype == np.uint8 else new.labels.astype(np.uint16)
    if not new.ignores:
        labels[(old == ignored) & (labels == BACKGROUND)] = ignored
    return labels


def paint(comparison: Comparison, *, exact: bool) -> LabelArray:
    """Return the labels [H, W] after a correction that lists objects.

    Removed objects become background. New and edited objects are painted in the order of the file: a new object below unchanged
    objects that come later in the file, an edited object above all unchanged objects. Other pixels keep their labels.

    Args:
        comparison: The objects of the correction and the old objects.
        exact: True if the source writes objects exactly. If False, objects that a tool may have redrawn stay unchanged.
    """
    labels = comparison.labels.copy()
    before, partners = comparison.before, comparison.partners
    unchanged = comparison.same | comparison.untouched | (set() if exact else comparison.redrawn)
    if len(unchanged) == len(before) and unchanged.issuperset(partners):
        return labels
    owners = comparison.owners
    # One extra entry, for pixels outside all objects: their owner is -1, which indexes the last entry.
    removed = np.ones(len(before) + 1, np.bool_)
    removed[[*unchanged, -1]] = False
    labels[removed[owners]] = BACKGROUND
    position = np.full(len(before) + 1, -1)  # index of each unchanged object in the file
    for new, old in enumerate(partners):
        if old in unchanged:
            position[old] = new
    for new, (shape, old) in enumerate(zip(comparison.shapes, partners, strict=True)):
        if old is None and (exact or new not in comparison.parts):
            above = position[owners[shape.place]] < new
            labels[shape.place][shape.mask & above] = shape.class_id
        elif old is not None and old not in unchanged:
            edited = comparison.whole_edit(new, old) if exact else comparison.edited[new]
            labels[edited.place][edited.mask] = edited.class_id
    return labels
