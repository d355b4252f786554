"""Draw text into images: choose the font that has the most letters, and cut text to the available width."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, cast

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: The end of a cut text, and the replacement for letters that no font has.
_CUT, _MISSING = "...", "?"

#: Pillow's built-in font, as (file, index).
_PLAIN = ("", 0)

# Pillow's built-in font has Latin letters without accents. For other letters, fontconfig lists the system fonts in order. The query
# fixes the language, so that the order and the output do not depend on the user's locale.
_FONTCONFIG = (
    "fc-match",
    "-s",  # sorted; only fonts that add letters
    "-f",
    "%{file}\t%{index}\t%{scalable}\t%{color}\n",
    "sans-serif:lang=en:scalable=true:color=false",
)

#: The end of an output line for a font that Pillow can draw: scalable and without colour.
_SCALABLE = "\tTrue\tFalse"

#: The timeout of fontconfig in seconds. Its first run indexes all fonts.
_TIMEOUT = 60

#: Fonts to try if fontconfig is not installed.
_FALLBACK_FONTS = (
    *("Arial.ttf", "arial.ttf", "segoeui.ttf", "Arial Unicode.ttf"),
    *("PingFang.ttc", "msyh.ttc", "meiryo.ttc", "malgun.ttf"),
)


def plain_font(size: int) -> Font:
    return _font(*_PLAIN, size)


def text_length(font: Font, text: str) -> float:
    return float(font.getlength(text))


def draw_text(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, font: Font, *, anchor: str, **style: Any
) -> None:
    """Draw lines of text at (x, y): the centre for the anchor "mm", the middle of the left side for "lm".

    `style` is passed to Pillow.
    """
    draw.text(position, text, font=font, anchor=anchor, align="center", **style)


def fit_name(name: str, spare_name: str, size: int, width: float) -> tuple[str, Font]:
    """Cut a name to `width` pixels and return it with a font. Letters that the font lacks become "?".

    If it lacks most of the letters, return `spare_name`.
    """
    # Cut to one letter per pixel first, so that the time does not depend on the length of the name.
    start = name[: max(int(width), 1)]
    shown, font = _drawable(start, size)
    missing = sum(one != other for one, other in zip(start, shown, strict=True))
    if 2 * missing > len(start) - start.count(" "):
        name, (shown, font) = spare_name, _drawable(spare_name, size)
    if len(shown) == len(name) and text_length(font, shown) <= width:
        return shown, font
    return shown[: _count_fitting(shown, font, width)] + _CUT, font


def fit_path(path: str, size: int, width: float) -> tuple[str, Font]:
    """Return the end of a path that fits into `width` pixels, with a font. Letters that the font lacks become "?"."""
    end, font = _drawable(path[-max(int(width), 1) :], size)
    if len(end) == len(path) and text_length(font, end) <= width:
        return end, font
    return _CUT + end[len(end) - _count_fitting(end[::-1], font, width) :], font


def find_undrawable(texts: Iterable[str]) -> list[str]:
    """Return the texts with a letter that their font lacks."""
    return [text for text in texts if _drawable(text, 13)[0] != text]


def _count_fitting(text: str, font: Font, width: float) -> int:
    """Return how many letters of a text fit into `width` pixels, including the end mark."""
    fits, too_many = 0, len(text) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if text_length(font, text[:middle] + _CUT) <= width:
            fits = middle
        else:
            too_many = middle
    return fits


def _drawable(text: str, size: int) -> tuple[str, Font]:
    """Return a text and the first font that has the most of its letters. Letters that it lacks become "?"."""
    best, most = _PLAIN, -1
    for font in _fonts():
        number = sum(_has_letter(font, letter) for letter in text)
        if number > most:
            best, most = font, number
        if number == len(text):
            break
    return "".join(letter if _has_letter(best, letter) else _MISSING for letter in text), _font(*best, size)


def _fonts() -> Iterator[tuple[str, int]]:
    yield _PLAIN
    yield from _font_files()  # lazy: not queried while the built-in font is enough


@lru_cache(maxsize=1)
def _font_files() -> tuple[tuple[str, int], ...]:
    try:
        result = subprocess.run(
            _FONTCONFIG, capture_output=True, check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
        lines = os.fsdecode(result.stdout).splitlines()
        fonts = [line.removesuffix(_SCALABLE).rpartition("\t") for line in lines if line.endswith(_SCALABLE)]
        return tuple((file, int(index)) for file, _, index in fonts)
    except (OSError, subprocess.SubprocessError, ValueError):
        return tuple((name, 0) for name in _FALLBACK_FONTS)


@lru_cache(maxsize=256)
def _font(file: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """Open a system font, or Pillow's built-in font for "". Raises OSError."""
    return ImageFont.truetype(file, size, index) if file else cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def _has_letter(font: tuple[str, int], letter: str) -> bool:
    """Return True if a font has a letter. Blanks and format characters only need a font that can be read."""
    absent = _shape(*font, "\uffff")
    if letter == " " or unicodedata.category(letter) == "Cf":
        return absent is not None
    return _shape(*font, letter) != absent


@lru_cache(maxsize=8192)
def _shape(file: str, index: int, letter: str) -> tuple[tuple[int, int], int] | None:
    """Return the size of a letter in a font and a hash of its pixels; None if the font cannot be read."""
    font = _basic_font(file, index)
    if font is None:
        return None
    mask = font.getmask(letter)
    return mask.size, hash(bytes(mask))


@lru_cache(maxsize=256)
def _basic_font(file: str, index: int) -> ImageFont.FreeTypeFont | None:
    """Open a font without text shaping, which would draw a dotted circle for a missing combining mark."""
    try:
        return _font(file, index, 13).font_variant(layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None
