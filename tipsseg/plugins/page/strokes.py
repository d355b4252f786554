"""The strokes of a brush, an eraser and a lasso, as the page of `tipsseg report` records them, drawn into labels.

Coordinates are in pixels of the image, (y, x), from its upper left corner: the centre of the pixel in row i and column j is at
(i + 0.5, j + 0.5). A pixel belongs to the stroke of a brush if its centre is within the radius of the stroke's line, and to a lasso
if its line winds around the centre. `assets/strokes.js` has the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats.records import ClassNames, Size
from tipsseg.types import BACKGROUND, LabelArray, ignore_id
from tipsseg.util.json import short, take

#: The maximum number of points of an image's strokes, as in `assets/changes.js`.
POINTS_MAX = 50_000

#: The boxes around an image's strokes may have this many times its pixels together: they bound the time.
AREAS_MAX = 500

#: Intervals per piece: intermediate arrays take about 100 bytes per interval.
_PIECE = 1 << 18

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stroke:
    """A stroke of a brush or an eraser, or a lasso.

    Attributes:
        points: [n, 2] (y, x) in pixels of the image, the line; a lasso is closed.
        radius: The radius of the brush in pixels; None for a lasso.
        label: The label id of its pixels; None for an eraser, which brings back the labels that were drawn upon.
    """

    points: _Floats
    radius: float | None
    label: int | None


def new_label(record: object, names: ClassNames) -> int:
    """Return the label id that a record of the page gives: a class, background if it is null, or ignored.

    Raise ValueError if the record has none; unknown names are collected by `names`.
    """
    if take(record, "ignore", bool | None):
        return ignore_id(names.count)
    if not isinstance(record, dict) or "class" not in record:
        raise ValueError("no `class`")
    name = record["class"]
    return BACKGROUND if name is None else names.id_of(take(record, "class", str))


def read_strokes(records: Sequence[object], names: ClassNames, size: Size) -> list[Stroke]:
    """Read the strokes of an image of `size` (H, W). Raise ValueError if one is damaged, or they are too many."""
    strokes, number, area = list[Stroke](), 0, 0.0
    for place, record in enumerate(records, start=1):
        try:
            points = take(record, "points", list)
            number += len(points)
            if number > POINTS_MAX:
                raise ValueError(f"more than {POINTS_MAX} points in one image")
            radius = None if take(record, "lasso", bool | None) else take(record, "radius", float)
            if radius is not None and not 0 < radius <= max(size):
                raise ValueError(f"`radius` is {radius:g}, not a length in the image")
            erases = take(record, "erase", bool | None)
            stroke = Stroke(
                points=_read_points(points, size), radius=radius, label=None if erases else new_label(record, names)
            )
        except ValueError as error:
            raise ValueError(f"stroke {place}: {error}") from error
        top, left, bottom, right = _box(stroke, size)
        area += max(bottom - top, 0) * max(right - left, 0)
        if area > AREAS_MAX * math.prod(size):
            raise ValueError(f"its strokes cover more than {AREAS_MAX} times the image")
        strokes.append(stroke)
    return strokes


def _read_points(values: list[object], size: Size) -> _Floats:
    """Return points [n, 2] (y, x). Raise ValueError unless they are pairs of numbers, in the image or at most its size outside."""
    for value in values:
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(
                isinstance(each, int | float) and not isinstance(each, bool) and -side <= each <= 2 * side
                for each, side in zip(value, size, strict=True)
            )
        ):
            raise ValueError(f"the point {short(value)} is not (y, x) near the image")
    if not values:
        raise ValueError("no points")
    return np.array(values, np.float64)


def draw_strokes(labels: LabelArray, strokes: Sequence[Stroke]) -> LabelArray:
    """Return labels [H, W] with strokes drawn in their order: the last one wins."""
    drawn = labels.copy()
    for stroke in strokes:
        size = (labels.shape[0], labels.shape[1])
        top, left, bottom, right = _box(stroke, size)
        if top >= bottom or left >= right:
            continue
        place = slice(top, bottom), slice(left, right)
        inside = _cover(stroke, (top, left, bottom, right))
        drawn[place][inside] = labels[place][inside] if stroke.label is None else stroke.label
    return drawn


def _box(stroke: Stroke, size: Size) -> tuple[int, int, int, int]:
    """Return the rows and columns (top, left, bottom, right) that a stroke may cover, empty if it is outside of the image."""
    low = np.floor(stroke.points.min(0) - (stroke.radius or 0))
    high = np.ceil(stroke.points.max(0) + (stroke.radius or 0))
    return (max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), size[0]), min(int(high[1]), size[1]))


def _cover(stroke: Stroke, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Return the pixels [h, w] in a box that belong to a stroke."""
    top, left, bottom, right = box
    width = right - left
    turns = np.zeros((bottom - top, width + 1), np.int32)
    closed = np.concatenate([stroke.points, stroke.points[:1]])
    edges = _crossings(closed, box) if stroke.radius is None else _intervals(stroke.points, stroke.radius, box)
    for rows, columns, steps in edges:
        np.add.at(turns, (rows - top, np.clip(columns - left, 0, width)), steps)
    return np.asarray(np.cumsum(turns[:, :-1], axis=1, dtype=np.int32) != 0)


_Edges = Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]


def _rows(low: _Floats, high: _Floats, top: int, bottom: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64]]]:
    """Yield pairs (segment, row) of the rows whose centres are from `low` to below or at `high`, piece by piece."""
    first = np.clip(np.ceil(low - 0.5), top, bottom).astype(np.int64)
    count = np.maximum(np.clip(np.floor(high - 0.5) + 1, top, bottom).astype(np.int64) - first, 0)
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        stop = max(int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PIECE, "right")), start + 1)
        segment = np.repeat(np.arange(start, stop), count[start:stop])
        offset = np.repeat(np.cumsum(count[start:stop]) - count[start:stop], count[start:stop])
        yield segment, first[segment] + np.arange(len(segment)) - offset
        start = stop


def _intervals(points: _Floats, radius: float, box: tuple[int, int, int, int]) -> _Edges:
    """Yield where the pixels within `radius` of a line begin, +1, and where they end, -1: rows, columns and steps."""
    last = points if len(points) == 1 else points[1:]
    one, other = points[: len(last)], last
    for segment, row in _rows(
        np.minimum(one, other)[:, 0] - radius, np.maximum(one, other)[:, 0] + radius, box[0], box[2]
    ):
        y = row.astype(np.float64) + 0.5
        (start_y, start_x), (end_y, end_x) = one[segment].T, other[segment].T
        left, right = _chord(y, start_y, start_x, end_y - start_y, end_x - start_x, radius)
        begin, end = np.ceil(left - 0.5).astype(np.int64), np.floor(right - 0.5).astype(np.int64) + 1
        for columns, step in ((begin, 1), (end, -1)):
            yield row[begin < end], columns[begin < end], np.full(int((begin < end).sum()), step, np.int32)


def _chord(
    y: _Floats, start_y: _Floats, start_x: _Floats, run_y: _Floats, run_x: _Floats, radius: float
) -> tuple[_Floats, _Floats]:
    """Return the leftmost and the rightmost x of a row `y` within `radius` of a segment.

    The row reaches furthest where the circle around the point at share t of the segment touches an edge of the stroke, or else
    around the nearest t at which the circle still meets the row.
    """
    length = np.sqrt(run_y * run_y + run_x * run_x)
    level = np.abs(run_y) < 1e-9
    slope = np.where(level, 1.0, run_y)
    touch = radius * run_x * np.sign(slope) / np.where(length == 0, 1.0, length)
    ends = np.stack([(y - start_y - radius) / slope, (y - start_y + radius) / slope])
    low, high = np.clip(ends.min(0), 0, 1), np.clip(ends.max(0), 0, 1)
    found = []
    for side in (-1, 1):
        share = np.clip((y - start_y + side * touch) / slope, low, high)
        share = np.where(level, side * run_x > 0, share)
        above = y - start_y - share * run_y
        found.append(start_x + share * run_x + side * np.sqrt(np.maximum(radius * radius - above * above, 0)))
    return found[0], found[1]


def _crossings(points: _Floats, box: tuple[int, int, int, int]) -> _Edges:
    """Yield where a closed line crosses the rows: rows, the columns right of it, and +1 if it goes down there, -1 if up."""
    one, other = points[:-1], points[1:]
    for segment, row in _rows(np.minimum(one, other)[:, 0], np.maximum(one, other)[:, 0], box[0], box[2]):
        y = row.astype(np.float64) + 0.5
        (start_y, start_x), (end_y, end_x) = one[segment].T, other[segment].T
        crosses = (start_y <= y) != (end_y <= y)
        share = (y - start_y)[crosses] / (end_y - start_y)[crosses]
        column = np.ceil(start_x[crosses] + share * (end_x - start_x)[crosses] - 0.5).astype(np.int64)
        yield row[crosses], column, np.where(end_y > start_y, 1, -1)[crosses].astype(np.int32)
