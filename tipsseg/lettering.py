"""Text in pictures: fonts that have the letters, and names cut to the room they have."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has Latin letters without accents, and is the same everywhere. For other names the first of these
# that the machine has, and that has all the letters.
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "segoeui.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "meiryo.ttc",
    "malgun.ttf",
)


def plain_font(size: int) -> Font:
    """Pillow's own font, `size` pixels high."""
    return _font("", size)


def text_length(font: Font, text: str) -> float:
    """The width of a text in pixels."""
    return float(font.getlength(text))


def fit_name(name: str, spare_name: str, size: int, room: float) -> tuple[str, Font]:
    """A name, cut to `room` pixels, and a font that has its letters; the spare name where there is no such font."""
    font = _font_with("".join(sorted(set(name))), size)
    name = name if font else spare_name
    font = font or _font("", size)
    if text_length(font, name) > room:
        while name and text_length(font, name + "...") > room:
            name = name[:-1]
        name += "..."
    return name, font


def one_line(name: str) -> str:
    """The name without control characters and line ends, which cannot be drawn or shown."""
    return " ".join("".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in name).split())


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    """A font file of the system by name, Pillow's own for no name; raises OSError."""
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


@lru_cache(maxsize=1024)
def _font_with(letters: str, size: int) -> Font | None:
    """The first font that has all the letters."""
    for name in ("", *_OTHER_FONTS):
        try:
            font = _font(name, size)
        except OSError:
            continue
        missing = _shape(font, "\uffff")
        if all(letter == " " or _shape(font, letter) != missing for letter in letters):
            return font
    return None


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
