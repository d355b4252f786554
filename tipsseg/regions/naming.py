"""Name the regions of an image, such as the masks of another tool, by the labels of their pixels.

A region gets the label that most of its pixels have. The labels come from patches, so near the edge of an object they are wrong by
up to a patch, and such a rim is thin. A label whose pixels in the region contain a disc as wide as a patch is not a rim: the region
covers several things, for example because the tool merged two objects. Such a region is split along its labels.

Where regions are shifted or have gaps, pixels without a region are left. Pieces of them that are smaller than a patch join what
they touch most, as no patch shows them alone, unless they would change their label and are sure of it.

Measured on synthetic scenes with true and with damaged regions, by `tests/benchmarks/regions.py`. Mean class probabilities, their
logarithms and votes weighted by confidence name regions as votes do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import UsageError
from tipsseg.regions.components import components
from tipsseg.regions.shapes import Runs, shape_from_mask
from tipsseg.types import BACKGROUND, ConfidenceArray, LabelArray

#: The number of pixels to paint at a time.
_PAINTED = 1 << 20

#: The radius in patches of the disc that makes a label a part of its own. What is thinner may be the blurred edge of another label.
PART_RADIUS = 0.85

#: How far labels change beside the edges of things, in patches: refined labels half a pixel as the model sees it, of patches of
#: 14 x 14; the others as measured by `tests/benchmarks/quality.py`.
_REFINED, _PLAIN = 1 / 28, 1 / 8

#: The mean confidence of a piece without a region that keeps its label, however small it is.
SURE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions:
    """The regions of an image.

    Attributes:
        ids: [H, W] int32: 0 outside all regions, 1..R the regions.
        only: True if pixels outside all regions become background.
        margin: Pixels whose centre is within this distance of an edge of a region, in pixels of the image, take the label of the
            pixel. They join a region of that label that they touch, else none.
    """

    ids: NDArray[np.int32]
    only: bool = False
    margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedRegions:
    """The labels of an image with named regions.

    Attributes:
        labels: [H, W], the label ids.
        confidence: [H, W], in a region its score: the mean over its pixels of the confidence in its label, which is counted as 0
            at pixels that had another label; elsewhere the confidence of the pixel.
        instances: [H, W] int32: 1, 2, ... for the regions and parts that got a class, 0 elsewhere.
    """

    labels: LabelArray
    confidence: ConfidenceArray
    instances: NDArray[np.int32]


def name_regions(
    labels: LabelArray,
    confidence: ConfidenceArray,
    regions: Regions,
    *,
    minimum: NDArray[np.float32],
    ignore: int,
    patch: float,
) -> NamedRegions:
    """Give each region one label, or one label for each part.

    Args:
        labels: [H, W], the best label of each pixel, whatever its confidence.
        confidence: [H, W], 0..1.
        regions: The regions.
        minimum: [N + 1] float32, the minimum confidence by label id. A region with a lower score is ignored, and so is a pixel
            outside all regions.
        ignore: The label id of ignored pixels.
        patch: The side of a patch in pixels of the image.
    """
    ids, number_of_labels = regions.ids, len(minimum)
    across = (labels[:, 1:] != labels[:, :-1]) | (ids[:, 1:] != ids[:, :-1])
    down = (labels[1:] != labels[:-1]) | (ids[1:] != ids[:-1])
    # Runs of pixels with one label in one region, row by row. There are far fewer runs than pixels.
    starts = np.ones(labels.shape, np.bool_)
    starts[:, 1:] = across
    first = np.flatnonzero(starts)
    lengths = np.diff(first, append=labels.size)
    sums = np.add.reduceat(confidence.reshape(-1), first, dtype=np.float64)
    radii = np.maximum.reduceat(_distances(across, down).reshape(-1), first)
    keys = ids.reshape(-1)[first].astype(np.int64) * number_of_labels + labels.reshape(-1)[first]
    # A part: the pixels with one label in one region.
    parts, part_of_run = np.unique(keys, return_inverse=True)
    region, label = np.divmod(parts, number_of_labels)
    pixels = np.bincount(part_of_run, lengths)
    confident = np.bincount(part_of_run, sums)
    radius = np.zeros(len(parts), np.float32)
    np.maximum.at(radius, part_of_run, radii)

    winner = _largest(region, pixels)
    target = np.where(radius >= PART_RADIUS * patch, np.arange(len(parts)), winner)
    score = confident / np.bincount(target, pixels, len(parts)).clip(1)
    final = label[target]
    final[score[target] < minimum[label[target]]] = ignore
    named = (target == np.arange(len(parts))) & (region > 0) & (final != BACKGROUND) & (final != ignore)
    instance = np.where(named, np.cumsum(named), 0).astype(np.int32)[target]

    outside = region[part_of_run] == 0
    result = np.repeat(final[part_of_run].astype(labels.dtype), lengths).reshape(labels.shape)
    share = np.repeat(score[target][part_of_run].astype(confidence.dtype), lengths).reshape(labels.shape)
    if outside.any():
        uncovered = np.repeat(outside, lengths).reshape(labels.shape)
        np.copyto(share, confidence, where=uncovered)
        np.copyto(result, BACKGROUND if regions.only else labels, where=uncovered)
        if minimum.any() and not regions.only:
            result[uncovered & (confidence < minimum[labels])] = ignore
    instances = np.repeat(instance[part_of_run], lengths).reshape(labels.shape)
    if regions.margin:
        _take_labels(result, share, instances, regions, labels, confidence, minimum, ignore)
        _, numbers = np.unique(np.append(instances, 0), return_inverse=True)  # some may have lost all their pixels
        instances = numbers[:-1].reshape(labels.shape).astype(np.int32)
    if outside.any() and not regions.only:
        free = (ids == 0) & (result != ignore) & ((instances == 0) | (regions.margin == 0))
        _join_pieces(result, share, instances, np.where(free, result + 1, 0), patch**2)
    return NamedRegions(labels=result, confidence=share, instances=instances)


def _near_edges(regions: Regions) -> NDArray[np.bool_]:
    """Return the pixels within the margin of an edge, [H, W]; with `only`, the pixels in regions alone."""
    ids = regions.ids
    near = _distances(ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]) + np.float32(0.5) <= regions.margin
    return near & (ids > 0) if regions.only else near


def are_rough(labels: LabelArray, ids: NDArray[np.int32], named: LabelArray, patch: float, *, refined: bool) -> bool:
    """Return True if labels do not change along most edges between regions of different labels.

    Args:
        labels: [H, W], the label of each pixel.
        ids: [H, W], the regions.
        named: [H, W], the labels of the regions.
        patch: The side of a patch in pixels of the image.
        refined: True if the labels are refined.
    """
    edges = missed = 0
    near = max(round((_REFINED if refined else _PLAIN) * patch), 1)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        between = (ids[one] != ids[other]) & (named[one] != named[other]) & (ids[one] > 0) & (ids[other] > 0)
        changes = cv2.dilate((labels[one] != labels[other]).view(np.uint8), np.ones((2 * near + 1,) * 2, np.uint8)) > 0
        edges += int(between.sum())
        missed += int((between & ~changes).sum())
    return 2 * missed > edges


def _take_labels(
    result: LabelArray,
    share: ConfidenceArray,
    instances: NDArray[np.int32],
    regions: Regions,
    labels: LabelArray,
    confidence: ConfidenceArray,
    minimum: NDArray[np.float32],
    ignore: int,
) -> None:
    """Give pixels near edges their own label, and join them to a region of that label that they touch, in place."""
    taken = np.flatnonzero(_near_edges(regions) & (labels != result))
    flat = [array.reshape(-1) for array in (result, share, instances)]
    ids, scores, objects = flat
    ids[taken], scores[taken], objects[taken] = labels.reshape(-1)[taken], confidence.reshape(-1)[taken], 0
    ids[taken[scores[taken] < minimum[ids[taken]]]] = ignore
    height, width = result.shape
    y, x = np.divmod(taken, width)
    for _ in range(math.ceil(2 * regions.margin)):  # a region may begin at the other side of the margin
        found = objects[taken]
        for offset, inside in ((-width, y > 0), (width, y < height - 1), (-1, x > 0), (1, x < width - 1)):
            next_to = taken + np.where(inside, offset, 0)
            joins = (found == 0) & (ids[next_to] == ids[taken]) & (objects[next_to] > 0)
            found[joins], scores[taken[joins]] = objects[next_to[joins]], scores[next_to[joins]]
        objects[taken] = found
        rest = found == 0
        taken, y, x = taken[rest], y[rest], x[rest]


def _join_pieces(
    labels: LabelArray,
    confidence: ConfidenceArray,
    instances: NDArray[np.int32],
    rest: NDArray[np.unsignedinteger[Any]],
    least: float,
) -> None:
    """Join pieces without a region, of fewer than `least` pixels, to the neighbour that they touch most, in place.

    `rest` [H, W] has the label ids of these pixels, plus 1; 0 elsewhere.
    """
    found = components(cast(LabelArray, rest.astype(np.uint16)), int(rest.max(initial=0)))
    pieces = [piece for piece in found if piece.area < least]
    free = np.ones(labels.shape, np.bool_)  # what is no piece
    for piece in pieces:
        y, x, h, w = piece.box
        free[y : y + h, x : x + w] &= ~piece.mask
    for piece in pieces:
        y, x, h, w = piece.box
        top, left = max(y - 1, 0), max(x - 1, 0)
        around = slice(top, y + h + 1), slice(left, x + w + 1)
        mask = np.zeros(labels[around].shape, np.uint8)
        mask[y - top : y - top + h, x - left : x - left + w] = piece.mask
        touched = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0) & free[around]
        if not touched.any():
            continue
        neighbours = np.stack([labels[around][touched], instances[around][touched], confidence[around][touched]])
        kinds, which, counts = np.unique(neighbours[:2], axis=1, return_inverse=True, return_counts=True)
        most = int(counts.argmax())
        label, instance = kinds[:, most].astype(np.int64).tolist()
        inside = mask > 0
        if label != piece.class_id - 1 and confidence[around][inside].mean() >= SURE:
            continue
        labels[around][inside], instances[around][inside] = label, instance
        if instance:
            confidence[around][inside] = neighbours[2, which.ravel() == most][0]


def _distances(across: NDArray[np.bool_], down: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the distance of each pixel from the next edge, [H, W], given the edges between columns and between rows."""
    edges = np.zeros((across.shape[0], down.shape[1]), np.bool_)
    edges[:, 1:] = across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return cv2.distanceTransform((~edges).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3).astype(np.float32, copy=False)


def _largest(region: NDArray[np.integer[Any]], pixels: NDArray[Any]) -> NDArray[np.intp]:
    """Return for each part the largest part of its region; the first of equal ones. `region` is sorted."""
    order = np.lexsort((-pixels, region))  # stable
    firsts = np.flatnonzero(np.diff(region, prepend=-1))
    winners: NDArray[np.intp] = order[firsts]
    return np.repeat(winners, np.diff(firsts, append=len(region)))


def paint_regions(regions: Sequence[Runs], size: tuple[int, int]) -> NDArray[np.int32]:
    """Return the ids 1, 2, ... of the regions at all pixels, [H, W]. Smaller regions are on top, and later ones of equal area.

    Args:
        regions: Column-major runs of the pixels of each region.
        size: (height, width) of the image.
    """
    ids = np.zeros(prod(size), np.int32)  # column by column
    runs = np.concatenate([np.empty((0, 2), np.int64), *regions])
    numbers = np.repeat(np.arange(1, len(regions) + 1), [len(own) for own in regions])
    lengths = runs[:, 1] - runs[:, 0]
    order = np.argsort(-np.bincount(numbers, lengths)[numbers], kind="stable")
    runs, numbers, lengths = runs[order], numbers[order], lengths[order]
    # In pieces, as regions that overlap may have many times the pixels of the image.
    pieces = np.flatnonzero(np.diff(np.cumsum(lengths) // _PAINTED, prepend=-1))
    for start, stop in pairwise([*pieces.tolist(), len(runs)]):
        own = lengths[start:stop]
        offsets = runs[start:stop, 0] - np.cumsum(own) + own
        ids[np.repeat(offsets, own) + np.arange(own.sum())] = np.repeat(numbers[start:stop], own)
    return np.ascontiguousarray(ids.reshape(size[1], size[0]).T)


def as_regions(given: object, size: tuple[int, int]) -> Regions:
    """Turn regions of an image of `size` into ids. Raise UsageError for other values.

    Args:
        given: Region ids [H, W]; masks [R, H, W] or [R, 1, H, W] of bool; a list of masks, or of records with a mask as
            `segmentation` (SAM) or `mask` (transformers), or a result of transformers with `masks`, or with `segmentation` [H, W]
            and its ids in `segments_info`. Or `Regions`, with any of these as `ids`.
        size: (height, width) of the image.
    """
    if isinstance(given, Regions):
        if not 0 <= given.margin < math.inf:
            raise UsageError(
                f"the margin of regions must be a distance in pixels, not {given.margin}", "For example: 1.5."
            )
        return replace(given, ids=as_regions(given.ids, size).ids)
    if isinstance(given, Mapping) and "segments_info" in given:
        given = [np.asarray(given.get("segmentation")) == segment["id"] for segment in given["segments_info"]]
    elif isinstance(given, Mapping):
        given = given.get("masks")
    if isinstance(given, list | tuple):
        found = [each.get("segmentation", each.get("mask")) if isinstance(each, Mapping) else each for each in given]
        masks = [np.asarray(each) for each in found]
        if not all(mask.dtype.kind in "biuf" and mask.ndim for mask in masks):
            raise UsageError("regions in a list must be masks, or records with a mask as `segmentation` or `mask`")
        if not all(mask.shape == size for mask in masks):
            shapes = sorted({str(list(mask.shape)) for mask in masks if mask.shape != size})
            raise UsageError(f"masks are {shapes[0]}, but the image has {size[0]} x {size[1]} (height x width) pixels")
        given = np.array(masks, np.bool_).reshape(-1, *size)
    array = np.asarray(given)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "biuf":
        raise UsageError(f"regions must be arrays, not {type(given).__name__}", "For files, use label_folder.")
    if array.shape[-2:] == size and array.ndim == 3 and array.dtype == np.bool_:
        return Regions(ids=paint_regions([shape_from_mask(1, mask).runs(size[0]) for mask in array], size))
    if array.shape == size and array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= np.iinfo(np.int32).max:
        return Regions(ids=array.astype(np.int32))
    raise UsageError(
        f"regions are {array.dtype} {list(array.shape)}, but the image has {size[0]} x {size[1]} (height x width) pixels",
        "Pass whole numbers [H, W] from 0, the region of each pixel, or masks [R, H, W] of bool, or a list of masks.",
    )
