"""The confusion matrix as a picture: a row for each truth, darker where more of its pixels were predicted so."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tipsseg.evaluation.metrics import NO_LABEL_NAME, Confusion, row_names
from tipsseg.types import Colour
from tipsseg.util.lettering import Font, fit_name, one_line, plain_font, text_length

_SIDE_MAX = 4000  # of the picture, pixels
_SIDE_MIN = 420  # what the title needs
_NUMBERS_MAX = 32  # with more rows the cells are too small for numbers
_WIDE_CELL_MAX = 110  # few columns may be as wide as their names
_NAME_ROOM = 190  # longer names are cut

_PAPER: Colour = (252, 252, 253)
_INK: Colour = (32, 36, 44)
_INK_FAINT: Colour = (116, 122, 134)
_LINE: Colour = (214, 218, 226)
_NO_TRUTH: Colour = (236, 237, 240)

# From almost white to a dark blue, with a clear blue half way.
_RAMP = np.array([(243, 246, 252), (158, 196, 236), (66, 133, 200), (16, 62, 122), (6, 26, 64)], np.float64)
_RAMP_AT = np.array([0.0, 0.28, 0.58, 0.85, 1.0])


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where things are, in pixels.

    cell           (height, width) of a cell
    title          font size of the title
    text           font size of names and numbers, 0: no names
    left, top      of the cells
    gap            between the last class's column and the column of pixels without a label
    size           (height, width) of the picture
    numbers        whether the cells hold numbers
    upright        whether the names of columns are written as those of rows, and not turned
    """

    cell: tuple[int, int]
    title: int
    text: int
    left: int
    top: int
    gap: int
    size: tuple[int, int]
    numbers: bool
    upright: bool


def draw(confusion: Confusion, names: Sequence[str], mean_iou: float | None = None) -> bytes:
    """The picture of `render` as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(render(confusion, names, mean_iou)).save(buffer, format="PNG")
    return buffer.getvalue()


def render(confusion: Confusion, names: Sequence[str], mean_iou: float | None = None) -> NDArray[np.uint8]:
    """The picture [h, w, 3] RGB, h and w up to 4000.

    names     of the classes 1..N, without background
    mean_iou  0..1, goes into the title; NaN and None do not

    A cell's colour is its share of the row, so of the truth pixels of the class. Rows without truth pixels are grey.
    """
    rows = tuple(
        one_line(name) or f"class {number}"
        for number, name in zip(confusion.ids, row_names(confusion, names), strict=True)
    )
    spare = tuple(f"class {number}" for number in confusion.ids)
    totals = confusion.counts.sum(1, keepdims=True)
    shares = confusion.counts / np.maximum(totals, 1)  # [R, R + 1]

    plan = _plan(rows, spare)
    picture = Image.fromarray(_cells(shares, totals[:, 0] > 0, plan))
    pen = ImageDraw.Draw(picture)
    if plan.numbers:
        _write_numbers(pen, shares, plan)
    if plan.text:
        _write_names(picture, pen, rows, spare, plan)
    _write_title(picture, pen, mean_iou, plan)
    return np.asarray(picture)


def _plan(names: Sequence[str], spare: Sequence[str]) -> _Plan:
    rows = len(names)
    numbers = rows <= _NUMBERS_MAX
    # Without numbers, cells get smaller with their number, down to a single pixel.
    height = (
        (34 if rows <= 12 else 28) if numbers else max(1, min(20, (_SIDE_MAX - 2 * _NAME_ROOM - 100) // (rows + 2)))
    )
    text = 13 if numbers else (min(12, height - 2) if height >= 9 else 0)
    longest = 0.0
    if text:
        fitted = (fit_name(*pair, text, _NAME_ROOM) for pair in zip(names, spare, strict=True))
        longest = max(text_length(font, name) for name, font in fitted)
    room = math.ceil(longest)
    upright = numbers and (rows + 1) * (room + 10) <= 640 and room + 10 <= _WIDE_CELL_MAX
    width = max(height, room + 10) if upright else height + (6 if numbers else 0)
    gap = max(1, width // 4)
    left = 16 + (text + 12 if text else 0) + room + 8
    across = max(left + rows * width + gap + width + 20, _SIDE_MIN)
    title = min(max(15, across // 100), 36)
    top = _head(title) + (text + 10 if text else 0) + (text + 12 if upright else room + 8)
    return _Plan((height, width), title, text, left, top, gap, (top + rows * height + 58, across), numbers, upright)


def _head(title: int) -> int:
    """What the title takes of the picture's height."""
    return 16 + title + 24


def _cells(shares: NDArray[np.float64], known: NDArray[np.bool_], plan: _Plan) -> NDArray[np.uint8]:
    """The picture with its cells and nothing else."""
    height, width = plan.cell
    rows = len(shares)
    colours = _colours(shares)  # [R, R + 1, 3]
    colours[~known] = _NO_TRUTH
    block = colours.repeat(height, 0).repeat(width, 1)  # [R * height, (R + 1) * width, 3]
    if min(plan.cell) >= 6:
        block[height - 1 :: height] = _PAPER
        block[:, width - 1 :: width] = _PAPER
    canvas = np.empty((*plan.size, 3), np.uint8)
    canvas[:] = np.array(_PAPER, np.uint8)
    stop = plan.left + rows * width
    bottom = plan.top + rows * height
    canvas[plan.top : bottom, plan.left : stop] = block[:, : rows * width]
    canvas[plan.top : bottom, stop + plan.gap : stop + plan.gap + width] = block[:, rows * width :]
    return canvas


def _colours(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[..., 3] RGB of shares 0..1. The square root lets confusions of a few per cent be seen."""
    place = np.sqrt(shares)
    channels = [np.interp(place, _RAMP_AT, _RAMP[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _write_numbers(pen: ImageDraw.ImageDraw, shares: NDArray[np.float64], plan: _Plan) -> None:
    height, width = plan.cell
    font = plain_font(plan.text)
    for row, column in np.argwhere(shares > 0).tolist():
        share = shares[row, column]
        centre = (_column_left(column, len(shares), plan) + (width - 1) / 2, plan.top + row * height + (height - 1) / 2)
        ink = _PAPER if share > 0.25 else _INK
        pen.text(centre, _percent(share), fill=ink, font=font, anchor="mm")


def _percent(share: float) -> str:
    """A whole number of per cent; 0 and 100 only where they are exact."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return ">99"
    return f"{100 * share:.0f}"


def _write_names(
    picture: Image.Image, pen: ImageDraw.ImageDraw, names: Sequence[str], spare: Sequence[str], plan: _Plan
) -> None:
    height, width = plan.cell
    rows = len(names)
    for row, pair in enumerate(zip(names, spare, strict=True)):
        name, font = fit_name(*pair, plan.text, _NAME_ROOM)
        pen.text((plan.left - 8, plan.top + row * height + height / 2), name, fill=_INK, font=font, anchor="rm")
        _write_column_name(picture, pen, name, font, row, rows, plan)
    _write_column_name(picture, pen, NO_LABEL_NAME, plain_font(plan.text), rows, rows, plan)

    font = plain_font(plan.text)
    middle = plan.left + rows * width / 2
    pen.text((middle, _head(plan.title)), "predicted", fill=_INK_FAINT, font=font, anchor="mt")
    side = _turned("truth", font, _INK_FAINT)
    picture.paste(side, (16, plan.top + (rows * height - side.height) // 2))


def _write_column_name(
    picture: Image.Image, pen: ImageDraw.ImageDraw, name: str, font: Font, column: int, columns: int, plan: _Plan
) -> None:
    middle = _column_left(column, columns, plan) + (plan.cell[1] - 1) / 2
    if plan.upright:
        pen.text((middle, plan.top - 9), name, fill=_INK, font=font, anchor="ms")
        return
    turned = _turned(name, font, _INK)
    picture.paste(turned, (round(middle - turned.width / 2), plan.top - 6 - turned.height))


def _turned(text: str, font: Font, ink: Colour) -> Image.Image:
    """The text, to be read from below."""
    line = Image.new("RGB", (math.ceil(text_length(font, text)) + 2, math.ceil(_line_height(font))), _PAPER)
    ImageDraw.Draw(line).text((1, line.height / 2), text, fill=ink, font=font, anchor="lm")
    return line.transpose(Image.Transpose.ROTATE_90)


def _line_height(font: Font) -> float:
    """The height of a line in pixels, from the highest letters to the lowest."""
    _, top, _, bottom = font.getbbox("Agjy|")
    return float(bottom - top)


def _column_left(column: int, columns: int, plan: _Plan) -> int:
    return plan.left + column * plan.cell[1] + (plan.gap if column == columns else 0)


def _write_title(picture: Image.Image, pen: ImageDraw.ImageDraw, mean_iou: float | None, plan: _Plan) -> None:
    """The title, and below the cells the colours with their numbers."""
    title = "Confusion of pixels, in % of the truth (rows)"
    if mean_iou is not None and not math.isnan(mean_iou):
        title = f"mean IoU {100 * mean_iou:.1f}   {title}"
    pen.text((16, 16), title, fill=_INK, font=plain_font(plan.title), anchor="lt")

    font = plain_font(11)
    width, height = min(260, plan.size[1] - 60), 10
    ramp = _colours(np.linspace(0, 1, width))[np.newaxis].repeat(height, 0)  # [height, width, 3]
    left, top = min(plan.left, plan.size[1] - width - 30), plan.size[0] - 40
    picture.paste(Image.fromarray(ramp), (left, top))
    pen.rectangle((left - 1, top - 1, left + width, top + height), outline=_LINE)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        pen.text(
            (left + share * (width - 1), top + height + 4),
            f"{100 * share:.0f}",
            fill=_INK_FAINT,
            font=font,
            anchor="mt",
        )
