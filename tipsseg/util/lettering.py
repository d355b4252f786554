"""Draw text into images: choose fonts that have all letters, and cut text to the available width."""

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
    """A font of `size` pixels for text that no single font can draw: every letter uses the first font that has it."""

    size: int


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont | MixedFont

#: The end of a cut text, and the replacement for letters that no font has.
_CUT, _MISSING = "...", "?"

#: The line height as a multiple of the font size.
_LINE = 1.2

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
    if isinstance(font, MixedFont):
        return sum(text_length(part_font, part) for part, part_font in _parts(text, font.size))
    return float(font.getlength(text))


def draw_text(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, font: Font, *, anchor: str, **style: Any
) -> None:
    """Draw lines of text at (x, y): the centre for the anchor "mm", the middle of the left side for "lm".

    `style` is passed to Pillow.
    """
    if not isinstance(font, MixedFont):
        draw.text(position, text, font=font, anchor=anchor, align="center", **style)
        return
    ascent, descent = _font(*_PLAIN, font.size).getmetrics()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        x = position[0] - (text_length(font, line) / 2 if anchor == "mm" else 0)
        # All fonts share one baseline.
        y = position[1] + (ascent - descent) / 2 + (number - (len(lines) - 1) / 2) * _LINE * font.size
        for part, part_font in _parts(line, font.size):
            draw.text((x, y), part, font=part_font, anchor="ls", **style)
            x += text_length(part_font, part)


def fit_name(name: str, spare_name: str, size: int, width: float) -> tuple[str, Font]:
    """Cut a name to `width` pixels and return it with a font. Missing letters become "?".

    If the fonts lack most of its letters, return `spare_name`.
    """
    # Cut to one letter per pixel first, so that the time does not depend on the length of the name.
    start = name[: max(int(width), 1)]
    whole = start == name
    missing = sum(_first_font(letter) is None for letter in start)
    if 2 * missing > len(start) - start.count(" "):
        start, whole = spare_name, True
    start = _replace_missing(start)
    font = _font_for(start, size)
    if whole and text_length(font, start) <= width:
        return start, font
    return start[: _count_fitting(start, font, width)] + _CUT, font


def fit_path(path: str, size: int, width: float) -> tuple[str, Font]:
    """Return the end of a path that fits into `width` pixels, with a font. Missing letters become "?"."""
    end = _replace_missing(path[-max(int(width), 1) :])
    font = _font_for(end, size)
    if len(end) == len(path) and text_length(font, end) <= width:
        return end, font
    return _CUT + end[len(end) - _count_fitting(end[::-1], font, width) :], font


def find_undrawable(texts: Iterable[str]) -> list[str]:
    """Return the texts with a letter that no font has."""
    return [text for text in texts if _replace_missing(text) != text]


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


def _replace_missing(text: str) -> str:
    return "".join(letter if _first_font(letter) else _MISSING for letter in text)


def _font_for(text: str, size: int) -> Font:
    letters = sorted(set(text))
    for font in _fonts():
        if all(_has_letter(font, letter) for letter in letters):
            return _font(*font, size)
    return MixedFont(size)


def _parts(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    fonts: list[tuple[str, int]] = []
    for letter in text:
        # Combining marks, joiners and blanks use the font of the previous letter.
        joins = letter == " " or unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")
        last = fonts[-1] if fonts and joins else None
        fonts.append(last if last and _has_letter(last, letter) else _first_font(letter) or _PLAIN)
    start = 0
    for font, run in groupby(fonts):
        end = start + len(list(run))
        yield text[start:end], _font(*font, size)
        start = end


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


@lru_cache(maxsize=4096)
def _first_font(letter: str) -> tuple[str, int] | None:
    return next((font for font in _fonts() if _has_letter(font, letter)), None)


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
