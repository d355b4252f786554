"""Write text into pictures, in fonts that have the letters, cut to the room."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, cast

from PIL import ImageDraw, ImageFont


@dataclass(frozen=True, slots=True)
class MixedFont:
    """Letters of `size` pixels for a text that no font has as a whole: each letter takes the first font that has it."""

    size: int


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont | MixedFont

#: What ends a name that was cut, and what stands for a letter that no font has.
_CUT, _MISSING = "...", "?"

#: The height of a line in sizes of the font.
_LINE = 1.2

#: Pillow's own font as the others are named.
_PLAIN = ("", 0)

# Pillow's own font, which is the same everywhere, has Latin letters without accents. For other letters fontconfig knows the fonts
# of the system and their order: one order for users of all languages, as the same command makes the same bytes.
_FONTCONFIG = (
    "fc-match",
    "-s",  # all fonts that add letters, in order
    "-f",
    "%{file}\t%{index}\t%{scalable}\t%{color}\n",
    "sans-serif:lang=en:scalable=true:color=false",
)

#: How the line of a font ends whose letters Pillow can draw at any size.
_DRAWN = "\tTrue\tFalse"

#: Seconds that fontconfig may take, the first time for an index of all fonts.
_PATIENCE = 60

#: The fonts of systems without fontconfig.
_OTHER_FONTS = (
    *("Arial.ttf", "arial.ttf", "segoeui.ttf", "Arial Unicode.ttf"),
    *("PingFang.ttc", "msyh.ttc", "meiryo.ttc", "malgun.ttf"),
)


def plain_font(size: int) -> Font:
    return _font(*_PLAIN, size)


def text_length(font: Font, text: str) -> float:
    if isinstance(font, MixedFont):
        return sum(text_length(part_font, part) for part, part_font in _parts(text, font.size))
    return float(font.getlength(text))


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, font: Font, *, anchor: str, **style: Any
) -> None:
    """Draw lines at (x, y), their middle or, by the anchor "lm", the middle of their left side; `style` as Pillow takes it."""
    if not isinstance(font, MixedFont):
        draw.text(place, text, font=font, anchor=anchor, align="center", **style)
        return
    ascent, descent = _font(*_PLAIN, font.size).getmetrics()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        x = place[0] - (text_length(font, line) / 2 if anchor == "mm" else 0)
        # On one line for the feet of all fonts.
        y = place[1] + (ascent - descent) / 2 + (number - (len(lines) - 1) / 2) * _LINE * font.size
        for part, part_font in _parts(line, font.size):
            draw.text((x, y), part, font=part_font, anchor="ls", **style)
            x += text_length(part_font, part)


def fit_name(name: str, spare_name: str, size: int, room: float) -> tuple[str, Font]:
    """Cut a name to `room` pixels, and return a font for it; take the spare name if no font has most of its letters.

    "?" stands for each other letter that no font has.
    """
    # Hardly a letter is narrower than a pixel: the time does not go with the length of the name.
    start = name[: max(int(room), 1)]
    whole = start == name
    missing = sum(_first_font(letter) is None for letter in start)
    if 2 * missing > len(start) - start.count(" "):
        start, whole = spare_name, True
    start = _readable(start)
    font = _font_for(start, size)
    if whole and text_length(font, start) <= room:
        return start, font
    return start[: _letters_in(start, font, room)] + _CUT, font


def fit_path(path: str, size: int, room: float) -> tuple[str, Font]:
    """Return the end of a path that fits into `room` pixels, and a font for it; "?" stands for each letter that no font has."""
    end = _readable(path[-max(int(room), 1) :])
    font = _font_for(end, size)
    if len(end) == len(path) and text_length(font, end) <= room:
        return end, font
    return _CUT + end[len(end) - _letters_in(end[::-1], font, room) :], font


def unreadable(texts: Iterable[str]) -> list[str]:
    """Return the texts that have a letter that no font has."""
    return [text for text in texts if _readable(text) != text]


def _letters_in(text: str, font: Font, room: float) -> int:
    fits, too_many = 0, len(text) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if text_length(font, text[:middle] + _CUT) <= room:
            fits = middle
        else:
            too_many = middle
    return fits


def _readable(text: str) -> str:
    return "".join(letter if _first_font(letter) else _MISSING for letter in text)


def _font_for(text: str, size: int) -> Font:
    different = sorted(set(text))
    for font in _fonts():
        if all(_has_letter(font, letter) for letter in different):
            return _font(*font, size)
    return MixedFont(size)


def _parts(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    fonts: list[tuple[str, int]] = []
    for letter in text:
        # What joins letters, or stands on one, and blanks go with the letter before.
        joins = letter == " " or unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")
        last = fonts[-1] if fonts and joins else None
        fonts.append(last if last and _has_letter(last, letter) else _first_font(letter) or _PLAIN)
    at = 0
    for font, run in groupby(fonts):
        number = len(list(run))
        yield text[at : at + number], _font(*font, size)
        at += number


def _fonts() -> Iterator[tuple[str, int]]:
    yield _PLAIN
    yield from _font_files()  # nobody asks for these while Pillow's own font does


@lru_cache(maxsize=1)
def _font_files() -> tuple[tuple[str, int], ...]:
    try:
        done = subprocess.run(_FONTCONFIG, capture_output=True, check=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
        lines = os.fsdecode(done.stdout).splitlines()
        fonts = [line.removesuffix(_DRAWN).rpartition("\t") for line in lines if line.endswith(_DRAWN)]
        return tuple((file, int(index)) for file, _, index in fonts)
    except (OSError, subprocess.SubprocessError, ValueError):
        return tuple((name, 0) for name in _OTHER_FONTS)


@lru_cache(maxsize=256)
def _font(file: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """Open a font of the system; "" stands for Pillow's own. Raises OSError."""
    return ImageFont.truetype(file, size, index) if file else cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


@lru_cache(maxsize=4096)
def _first_font(letter: str) -> tuple[str, int] | None:
    return next((font for font in _fonts() if _has_letter(font, letter)), None)


def _has_letter(font: tuple[str, int], letter: str) -> bool:
    """Tell whether a font has a letter, or at least a blank; a font that cannot be read has none."""
    absent = _shape(*font, "\uffff")
    if letter == " " or unicodedata.category(letter) == "Cf":
        return absent is not None
    return _shape(*font, letter) != absent


@lru_cache(maxsize=8192)
def _shape(file: str, index: int, letter: str) -> tuple[tuple[int, int], int] | None:
    """Return the size of a letter in a font, and a hash of its pixels; None for a font that cannot be read."""
    font = _font_of_letters(file, index)
    if font is None:
        return None
    mask = font.getmask(letter)
    return mask.size, hash(bytes(mask))


@lru_cache(maxsize=256)
def _font_of_letters(file: str, index: int) -> ImageFont.FreeTypeFont | None:
    """Open a font without rules for neighbours, which would put a circle below a mark that it lacks."""
    try:
        return _font(file, index, 13).font_variant(layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None
