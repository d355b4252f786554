"""Draw text into images: in Pillow's font, or in a font of the system for letters that it lacks, cut to the available width."""

from __future__ import annotations

import os
import subprocess
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: The end of a cut text, and the replacement for letters that the font lacks.
_CUT, _MISSING = "...", "?"

#: Pillow's built-in font, as (file, index).
_PLAIN = ("", 0)

#: The timeout of fontconfig in seconds. Its first run indexes all fonts.
_TIMEOUT = 60

#: Fonts to try if fontconfig is not installed, as on macOS and Windows.
_KNOWN_FONTS = ("Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "segoeui.ttf")


def plain_font(size: int) -> Font:
    """Return Pillow's built-in font, which has Latin letters without accents."""
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
    lengths = range(1, len(text) + 1)
    return bisect_right(lengths, width, key=lambda count: text_length(font, text[:count] + _CUT))


def _drawable(text: str, size: int) -> tuple[str, Font]:
    """Return a text and the font that has the most of its letters. Letters that it lacks become "?"."""
    fonts = [_PLAIN]
    if not all(_has_letter(*_PLAIN, letter) for letter in text):
        fonts += _system_fonts("".join(sorted(set(text))))
    font = max(fonts, key=lambda font: sum(_has_letter(*font, letter) for letter in text))  # the first of equals
    return "".join(letter if _has_letter(*font, letter) else _MISSING for letter in text), _font(*font, size)


@lru_cache(maxsize=1024)
def _system_fonts(letters: str) -> list[tuple[str, int]]:
    """Return (file, index) of the font that fontconfig names for these letters, or of fonts to try without fontconfig."""
    charset = " ".join(f"{ord(letter):x}" for letter in letters)
    # A fixed language, so that the output does not depend on the user's locale.
    query = f"sans-serif:lang=en:scalable=true:color=false:charset={charset}"
    command = ("fc-match", "-f", "%{file}\t%{index}", query)
    try:
        ran = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
        file, index = os.fsdecode(ran.stdout).split("\t")
        return [(file, int(index))]
    except (OSError, subprocess.SubprocessError, ValueError):
        return [(name, 0) for name in _KNOWN_FONTS]


@lru_cache(maxsize=256)
def _font(file: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """Open a system font, or Pillow's built-in font for "". Raise OSError if that fails."""
    return ImageFont.truetype(file, size, index) if file else cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


@lru_cache(maxsize=8192)
def _has_letter(file: str, index: int, letter: str) -> bool:
    """Return True if a font can be read and draws a letter otherwise than one that no font has."""
    try:
        # Without text shaping, which would draw a dotted circle for a missing combining mark.
        font = _font(file, index, 13).font_variant(layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return False
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
