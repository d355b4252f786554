"""Draw labels on an image: tinted and outlined regions with names inside the larger ones, and a legend below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tipsseg.regions.components import Region, components
from tipsseg.regions.objects import ancestors, count_pixels, has_parts, outermost
from tipsseg.types import BACKGROUND, IGNORED_COLOUR, Colour, LabelArray, LabelClass, ignore_id
from tipsseg.util.lettering import Font, draw_text, fit_name, fit_path, plain_font, text_length
from tipsseg.util.text import one_line

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


#: A name in one or two lines, its font, and the (y, x) of its centre in pixels.
PlacedName = tuple[str, Font, tuple[float, float]]


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
                return "\n".join(lines), font, ((y + row - 0.5) / scale, (x + column - 0.5) / scale)
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


_LONG_SIDE_MIN = 320  # smaller images are enlarged
_CANVAS_WIDTH_MIN = 320  # to fit a legend entry

_TINT = 0.5  # share of the class colour in a pixel
_DIM = 0.62  # brightness of background pixels
_GREY: Colour = (70, 74, 80)
_IGNORED_DARK: Colour = (84, 84, 84)
_PAPER: Colour = (24, 26, 30)
_INK: Colour = (240, 240, 240)
_INK_FAINT: Colour = (165, 170, 178)


def draw_labels(
    image: NDArray[np.uint8],
    labels: LabelArray,
    classes: Sequence[LabelClass],
    name: str,
) -> NDArray[np.uint8]:
    """Draw an image with its labels. The long side of the picture is at least 320 pixels, plus the legend.

    Args:
        image: The thumbnail, [h, w, 3] RGB uint8, not larger than the labels.
        labels: The label ids, [H, W].
        classes: The classes in the order of their ids, 1..N.
        name: The name of the image.

    Returns:
        [h, w, 3] RGB uint8.
    """
    picture, ids = _scale(image, labels)
    _paint(picture, ids, classes)
    height, width = ids.shape
    # Letter height: 13 for 640 x 480 pixels, 80 for 4000 x 3000.
    size = int(np.clip(round((height * max(width, _CANVAS_WIDTH_MIN)) ** 0.5 / 42), 13, 80))
    return _add_legend(_add_names(picture, ids, classes, size), name, _legend_entries(labels, classes), size)


def _scale(image: NDArray[np.uint8], labels: LabelArray) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return copies of the image and the labels (as uint16) at the same size, at least _LONG_SIDE_MIN."""
    height, width = image.shape[:2]
    if (height, width) != labels.shape:
        small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return image.copy(), small.astype(np.uint16)
    times = max(1, -(-_LONG_SIDE_MIN // max(height, width)))
    if times == 1:
        return image.copy(), labels.astype(np.uint16)
    return image.repeat(times, 0).repeat(times, 1), labels.astype(np.uint16).repeat(times, 0).repeat(times, 1)


def _paint(picture: NDArray[np.uint8], labels: NDArray[np.uint16], classes: Sequence[LabelClass]) -> None:
    """Tint and outline the labels [H, W] in a picture [H, W, 3], in place, by passes over all pixels, which OpenCV vectorizes."""
    height, width = labels.shape
    unit = round((height * width) ** 0.5 / 600 + 0.6) or 1  # 2 for 640 x 480, 6 for 4000 x 3000
    ids = labels.astype(np.uint8) if ignore_id(len(classes)) < 256 else labels
    ignored, classed = labels == ignore_id(len(classes)), labels != BACKGROUND
    classed &= ~ignored

    flat = colour_labels(ids, classes)
    tinted = cv2.addWeighted(picture, 1 - _TINT, flat, _TINT, 0).astype(np.uint8, copy=False)
    layers = list[tuple[NDArray[np.bool_], NDArray[np.uint8]]]()
    if ignored.any():
        stripes = _stripes(height, width, unit)
        for where, grey in ((ignored & stripes, IGNORED_COLOUR), (ignored & ~stripes, _IGNORED_DARK)):
            layers.append((where, _map_values(picture, 0.35 * np.arange(256.0)[:, None] + 0.65 * np.array(grey))))
    layers.append((classed, tinted))
    picture[:] = _map_values(picture, np.arange(256, dtype=np.uint8) * np.float32(_DIM))

    # Outlines: the class colour inside a region, and a dark line outside it for contrast with bright photographs.
    kernel = np.ones((2 * unit + 1, 2 * unit + 1), np.uint8)
    edge = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    for where, layer in (*layers, (edge & classed, flat)):
        cv2.copyTo(layer, where.view(np.uint8), picture)
    dark = _map_values(picture, np.arange(256, dtype=np.uint8) * np.float32(0.3))
    cv2.copyTo(dark, (edge & ~classed).view(np.uint8), picture)
    if has_parts(classes):  # the outlines of wholes are above the outlines of their parts
        wholes = outermost(ids, classes)
        edge &= cv2.dilate(wholes, kernel) != cv2.erode(wholes, kernel)
        cv2.copyTo(colour_labels(wholes, classes), (edge & classed).view(np.uint8), picture)


def colour_labels(
    ids: NDArray[np.unsignedinteger], classes: Sequence[LabelClass], ignored: Colour = (0, 0, 0)
) -> NDArray[np.uint8]:
    """Return the colours [H, W, 3] of label ids [H, W], uint8 or uint16; black for those without a class."""
    table = np.zeros((int(np.iinfo(ids.dtype).max) + 1, 3), np.uint8)
    table[min(ignore_id(len(classes)), len(table) - 1)] = ignored
    for entry in classes:
        table[entry.id] = entry.colour
    if ids.dtype == np.uint8:
        return cv2.LUT(cv2.merge([ids] * 3), table[None]).astype(np.uint8, copy=False)
    return np.take(table, ids, axis=0)


def _map_values(picture: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a picture with other values, rounded down, from a table for all channels [256] or for each [256, 3]."""
    table = values.astype(np.uint8)
    return cv2.LUT(picture, table if table.ndim == 1 else table[None]).astype(np.uint8, copy=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the legend. Without a colour, its swatch has the stripes of ignored pixels. `depth` is 0 but for a part."""

    name: str
    spare_name: str
    share: float
    colour: Colour | None
    depth: int = 0


def _legend_entries(labels: LabelArray, classes: Sequence[LabelClass]) -> list[_Entry]:
    counts = count_pixels(labels, classes) / labels.size
    chains = ancestors(classes)
    entries = [
        _Entry(shown_name(entry), spare_name(entry), float(counts[entry.id]), entry.colour, len(chain) - 1)
        for entry, chain in sorted(
            zip(classes, chains, strict=True), key=lambda pair: pair[1]
        )  # parts below their whole
        if counts[entry.id]
    ]
    if counts[BACKGROUND]:
        entries.append(_Entry("background", "background", float(counts[BACKGROUND]), _GREY))
    if ignored := float(counts[ignore_id(len(classes))]):
        entries.append(_Entry("low confidence", "low confidence", ignored, None))
    return entries


def _add_names(
    picture: NDArray[np.uint8], labels: NDArray[np.uint16], classes: Sequence[LabelClass], size: int
) -> NDArray[np.uint8]:
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    stroke = {"stroke_width": max(size // 7, 1), "stroke_fill": _PAPER}
    for name, font, (y, x) in place_names(labels, classes, size):
        draw_text(draw, (x, y), name, font, anchor="mm", fill=_INK, **stroke)
    return np.asarray(canvas)


def _add_legend(picture: NDArray[np.uint8], name: str, entries: list[_Entry], size: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    canvas_width = max(width, _CANVAS_WIDTH_MIN)
    strip = _legend(name, entries, canvas_width, size, max(4, height // (2 * size)))

    left = (canvas_width - width) // 2
    sides = (0, 0, left, canvas_width - width - left)
    framed = cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT, value=_PAPER) if any(sides) else picture
    return np.concatenate([framed.astype(np.uint8, copy=False), strip])


def _legend(name: str, entries: list[_Entry], width: int, size: int, row_limit: int) -> NDArray[np.uint8]:
    """Draw a strip with the image's name and, in flowing rows, the swatch, name and share of every entry.

    If the rows overflow, draw the entries with the largest shares and the number of the others.
    """
    gap, line = round(size * 0.6), round(size * 1.75)
    plain = plain_font(size)
    rows, left_out = _arrange_rows(entries, width, size, row_limit)
    if left_out:
        rows, left_out = _arrange_rows(sorted(entries, key=lambda entry: -entry.share), width, size, row_limit)

    strip = Image.new("RGB", (width, (1 + len(rows) + bool(left_out)) * line + 2 * gap), _PAPER)
    draw = ImageDraw.Draw(strip)
    middle = gap + line // 2
    title, font = fit_path(one_line(name), size, width - 2 * gap)
    draw_text(draw, (gap, middle), title, font, anchor="lm", fill=_INK_FAINT)
    for row in rows:
        middle += line
        for x, entry, text, letters in row:
            strip.paste(_swatch(entry.colour, size), (x, middle - size // 2))
            left = x + size + gap
            draw_text(draw, (left, middle), text, letters, anchor="lm", fill=_INK)
            left += round(text_length(letters, text)) + gap
            draw_text(draw, (left, middle), _percent(entry.share), plain, anchor="lm", fill=_INK_FAINT)
    if left_out:
        draw_text(draw, (gap, middle + line), f"and {left_out} more", plain, anchor="lm", fill=_INK_FAINT)
    return np.asarray(strip)


def _arrange_rows(
    entries: list[_Entry], width: int, size: int, limit: int
) -> tuple[list[list[tuple[int, _Entry, str, Font]]], int]:
    """Arrange entries in rows of (x, entry, fitted name, font). Return the rows, and the number of entries that do not fit."""
    gap = round(size * 0.6)
    plain = plain_font(size)
    deepest = max((entry.depth for entry in entries), default=0)
    room = width - 4 * gap - size - deepest * (size + gap) - text_length(plain, _percent(1.0))
    rows: list[list[tuple[int, _Entry, str, Font]]] = [[]]
    x = gap
    for number, entry in enumerate(entries):
        name, font = fit_name(entry.name, entry.spare_name, size, room)
        advance = round(size + 2 * gap + text_length(font, name) + text_length(plain, _percent(entry.share)))
        indent = gap + entry.depth * (size + gap)
        another = number > 0 and entry.depth != entries[number - 1].depth  # a whole, or its first part
        if rows[-1] and (another or x + advance > width - gap):
            if len(rows) == limit:
                return rows, len(entries) - number
            rows.append([])
        if not rows[-1]:
            x = indent
        rows[-1].append((x, entry, name, font))
        x += advance + 2 * gap
    return rows, 0


def _swatch(colour: Colour | None, size: int) -> Image.Image:
    square = np.empty((size, size, 3), np.uint8)
    square[:] = colour or IGNORED_COLOUR
    if colour is None:
        square[~_stripes(size, size, max(1, size // 10))] = _IGNORED_DARK
    return Image.fromarray(square)


def _stripes(height: int, width: int, unit: int) -> NDArray[np.bool_]:
    stripes: NDArray[np.bool_] = np.add.outer(np.arange(height), np.arange(width)) // (4 * unit) % 2 == 0
    return stripes


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
