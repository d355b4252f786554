"""Text in pictures: fonts that have the letters, and names that are cut to the room."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: What ends a name that was cut.
_CUT = "..."

# Pillow's own font has Latin letters without accents, and is the same everywhere. Other names take the first of these fonts
# that the machine has and that has all the letters.
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
    """A name, cut to `room` pixels, and a font that has its letters; the spare name where no font has them."""
    # Hardly a letter is narrower than a pixel: the time does not go with the length of the name.
    start = name[: max(int(room), 1)]
    font = _font_with(start, size)
    name, start = (name, start) if font else (spare_name, spare_name)
    font = font or _font("", size)
    if start == name and text_length(font, name) <= room:
        return name, font
    return start[: _letters_in(start, font, room)] + _CUT, font


def fit_path(path: str, size: int, room: float) -> tuple[str, Font]:
    """The end of a path that fits into `room` pixels, and a font; "?" stands for each letter where no font has them all."""
    end = path[-max(int(room), 1) :]
    font = _font_with(end, size)
    if font is None:
        path, end = (text.encode("ascii", "replace").decode() for text in (path, end))
        font = _font("", size)
    if end == path and text_length(font, path) <= room:
        return path, font
    return _CUT + end[len(end) - _letters_in(end[::-1], font, room) :], font


def _letters_in(text: str, font: Font, room: float) -> int:
    """How many of the first letters fit, together with "..."."""
    fits, too_many = 0, len(text) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if text_length(font, text[:middle] + _CUT) <= room:
            fits = middle
        else:
            too_many = middle
    return fits


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    """A font of the system by the name of its file; "" stands for Pillow's own font. Raises OSError."""
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _font_with(letters: str, size: int) -> Font | None:
    """The first font that has all the letters; None where no font has."""
    different = sorted(set(letters))
    for name in ("", *_OTHER_FONTS):
        try:
            font = _font(name, size)
        except OSError:
            continue
        if all(letter == " " or _has_letter(name, size, letter) for letter in different):
            return font
    return None


@lru_cache(maxsize=4096)
def _has_letter(name: str, size: int, letter: str) -> bool:
    """Whether a font of that name, which is there, has the letter."""
    font = _font(name, size)
    return _shape(font, letter) != _shape(font, "\uffff")


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
