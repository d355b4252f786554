"""Place the names of classes on their regions in a picture: on the larger ones, where they have room inside."""

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

#: Room is looked for in a small copy: the time is not to go with the size of the picture.
_LONG_SIDE = 512

#: Smaller regions, as shares of the picture, have no name.
_MIN_SHARE = 0.002

_NAMES_A_CLASS = 3
_NAMES = 80

#: A name that takes more than this share of the picture's width is cut.
_WIDEST = 0.5

#: If a name has no room, smaller letters are tried.
_SIZES = (1.0, 0.8)

#: In sizes of the font: the height of a line, and the room around a name.
_LINE, _MARGIN = 1.2, 0.3


@dataclass(frozen=True, slots=True)
class PlacedName:
    """A name in one or two lines with its font, and (y, x) of its middle in pixels."""

    text: str
    font: Font
    middle: tuple[float, float]


def spare_name(entry: LabelClass) -> str:
    """Return what a class is called if no font has the letters of its name."""
    return f"class {entry.id}"


def shown_name(entry: LabelClass) -> str:
    """Return the name of a class as it is written into pictures."""
    return one_line(entry.name) or spare_name(entry)


def place_names(labels: NDArray[np.uint16], classes: Sequence[LabelClass], size: int) -> list[PlacedName]:
    """Place names on the regions of a label map [H, W] of these classes, in letters of `size` pixels; the largest regions first."""
    height, width = labels.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    small = (max(round(height * scale), 1), max(round(width * scale), 1))
    reduced = cv2.resize(labels, small[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint16)
    regions = components(reduced, len(classes), max(round(reduced.size * _MIN_SHARE), 1))
    found: list[PlacedName] = []
    of_class: Counter[int] = Counter()
    for region in sorted(regions, key=lambda each: -each.area):  # stable
        if len(found) < _NAMES and of_class[region.class_id] < _NAMES_A_CLASS:
            placed = _place(region, classes[region.class_id - 1], size, scale, width)
            if placed is not None:
                found.append(placed)
                of_class[region.class_id] += 1
    return found


def largest_regions(labels: LabelArray, number_of_classes: int) -> list[Region]:
    """Find the largest region of each class in a label map [H, W], unless all are too small for a name."""
    regions = components(labels, number_of_classes, max(round(labels.size * _MIN_SHARE / 4), 1))
    largest = {region.class_id: region for region in sorted(regions, key=lambda region: region.area)}
    return [largest[number] for number in sorted(largest)]


def inner_point(region: Region) -> tuple[int, int]:
    """Return (y, x) of the pixel of a region that is farthest from its edges."""
    y, x, _, _ = region.box
    row, column = _deepest(np.pad(region.mask.astype(np.uint8), 1))
    return y + row - 1, x + column - 1


def _place(region: Region, entry: LabelClass, size: int, scale: float, width: int) -> PlacedName | None:
    """Place the name in the middle of its room; None if it has none."""
    y, x, _, _ = region.box
    mask = np.pad(region.mask.astype(np.uint8), 1)
    for letters in (max(round(size * share), 9) for share in _SIZES):
        name, font = fit_name(shown_name(entry), spare_name(entry), letters, _WIDEST * width)
        for lines in _broken(name):
            longest = max(text_length(font, line) for line in lines)
            # Odd, so that it has a middle.
            wide = round(scale * (longest + 2 * _MARGIN * letters)) | 1
            high = round(scale * (len(lines) * _LINE + 2 * _MARGIN) * letters) | 1
            middle = _middle_of_room(mask, high, wide)
            if middle is not None:
                row, column = middle
                return PlacedName("\n".join(lines), font, ((y + row - 0.5) / scale, (x + column - 0.5) / scale))
    return None


def _broken(name: str) -> Iterator[list[str]]:
    """Yield the name in one line, and in two if it has a space, at the one nearest to its middle."""
    yield [name]
    spaces = [place for place, letter in enumerate(name) if letter == " "]
    if spaces:
        place = min(spaces, key=lambda place: abs(2 * place + 1 - len(name)))
        yield [name[:place], name[place + 1 :]]


def _middle_of_room(mask: NDArray[np.uint8], height: int, width: int) -> tuple[int, int] | None:
    """Return (y, x) of the middle of a box of this size, as far inside the mask as it can be; None if no such box fits."""
    if height > mask.shape[0] or width > mask.shape[1]:
        return None
    room = cv2.erode(mask, np.ones((height, width), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return _deepest(room.astype(np.uint8, copy=False)) if room.any() else None


def _deepest(mask: NDArray[np.uint8]) -> tuple[int, int]:
    """Return (y, x) of the pixel of a mask that is farthest from those outside of it."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    # Of a long region that is a line: its middle.
    deep = np.argwhere(inside >= inside.max())
    row, column = deep[np.square(deep - deep.mean(0)).sum(1).argmin()].tolist()
    return row, column
