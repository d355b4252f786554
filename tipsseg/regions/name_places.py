"""Place class names inside the larger regions of a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.regions.components import Region, components
from tipsseg.types import LabelArray, LabelClass
from tipsseg.util.lettering import Font, fit_name, text_length
from tipsseg.util.printable import one_line

#: Positions are searched in a copy of this size, so that the time does not grow with the picture.
_LONG_SIDE = 512

#: Regions below this share of the picture get no name.
_MIN_SHARE = 0.002

_NAMES_PER_CLASS = 3
_NAMES = 80

#: Names are shortened to this share of the picture's width.
_WIDEST = 0.5

#: Relative letter sizes, in the order they are tried.
_SIZES = (1.0, 0.8)

#: Height of a line and margin around a name, relative to the size of the letters.
_LINE, _MARGIN = 1.2, 0.3


@dataclass(frozen=True, slots=True)
class PlacedName:
    """A name in one or two lines, its font, and the (y, x) of its centre in pixels."""

    text: str
    font: Font
    middle: tuple[float, float]


def spare_name(entry: LabelClass) -> str:
    """Return the name to draw if no font covers the letters of the class name."""
    return f"class {entry.id}"


def shown_name(entry: LabelClass) -> str:
    """Return the name of a class on one line, for pictures."""
    return one_line(entry.name) or spare_name(entry)


def place_names(labels: NDArray[np.uint16], classes: Sequence[LabelClass], size: int) -> list[PlacedName]:
    """Place names on the regions of a label map [H, W], largest regions first. `size` is the height of the letters in pixels."""
    height, width = labels.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    small = (max(round(height * scale), 1), max(round(width * scale), 1))
    reduced = cv2.resize(labels, small[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint16)
    regions = components(reduced, len(classes), max(round(reduced.size * _MIN_SHARE), 1))
    names: list[PlacedName] = []
    counts: Counter[int] = Counter()
    for region in sorted(regions, key=lambda region: -region.area):  # stable
        if len(names) < _NAMES and counts[region.class_id] < _NAMES_PER_CLASS:
            name = _place(region, classes[region.class_id - 1], size, scale, width)
            if name is not None:
                names.append(name)
                counts[region.class_id] += 1
    return names


def largest_regions(labels: LabelArray, number_of_classes: int) -> list[Region]:
    """Find the largest region of each class in a label map [H, W]. Omit classes whose regions are all very small."""
    regions = components(labels, number_of_classes, max(round(labels.size * _MIN_SHARE / 4), 1))
    largest = {region.class_id: region for region in sorted(regions, key=lambda region: region.area)}
    return [largest[number] for number in sorted(largest)]


def inner_point(region: Region) -> tuple[int, int]:
    """Return the (y, x) of the region's pixel that is farthest from its edges."""
    y, x, _, _ = region.box
    row, column = _innermost_pixel(np.pad(region.mask.astype(np.uint8), 1))
    return y + row - 1, x + column - 1


def _place(region: Region, entry: LabelClass, size: int, scale: float, width: int) -> PlacedName | None:
    """Place a name inside a region; return None if it does not fit."""
    y, x, _, _ = region.box
    mask = np.pad(region.mask.astype(np.uint8), 1)
    for letters in (max(round(size * share), 9) for share in _SIZES):
        name, font = fit_name(shown_name(entry), spare_name(entry), letters, _WIDEST * width)
        for lines in _line_breaks(name):
            longest = max(text_length(font, line) for line in lines)
            # Use odd lengths, because they have a middle pixel.
            box_width = round(scale * (longest + 2 * _MARGIN * letters)) | 1
            box_height = round(scale * (len(lines) * _LINE + 2 * _MARGIN) * letters) | 1
            middle = _find_room(mask, box_height, box_width)
            if middle is not None:
                row, column = middle
                return PlacedName("\n".join(lines), font, ((y + row - 0.5) / scale, (x + column - 0.5) / scale))
    return None


def _line_breaks(name: str) -> Iterator[list[str]]:
    """Yield the name on one line, then broken at the space nearest to its middle, if it has a space."""
    yield [name]
    spaces = [index for index, letter in enumerate(name) if letter == " "]
    if spaces:
        middle = min(spaces, key=lambda index: abs(2 * index + 1 - len(name)))
        yield [name[:middle], name[middle + 1 :]]


def _find_room(mask: NDArray[np.uint8], height: int, width: int) -> tuple[int, int] | None:
    """Return the (y, x) of the centre of a box of this size, as deep inside the mask as possible; None if no box fits."""
    if height > mask.shape[0] or width > mask.shape[1]:
        return None
    room = cv2.erode(mask, np.ones((height, width), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return _innermost_pixel(room.astype(np.uint8, copy=False)) if room.any() else None


def _innermost_pixel(mask: NDArray[np.uint8]) -> tuple[int, int]:
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    # In a long region these pixels form a line: take the one nearest to their mean.
    deep = np.argwhere(inside >= inside.max())
    row, column = deep[np.square(deep - deep.mean(0)).sum(1).argmin()].tolist()
    return row, column
