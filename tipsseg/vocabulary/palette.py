"""Colours for class ids: the default palette, and the PASCAL VOC palette."""

from __future__ import annotations

import colorsys

from tipsseg.types import Colour

# The first twelve colours are chosen by hand, because most runs have no more classes. Neighbours differ in hue and lightness.
_FIRST: tuple[Colour, ...] = (
    (230, 57, 70),  # red
    (46, 134, 222),  # blue
    (250, 200, 40),  # yellow
    (44, 182, 105),  # green
    (155, 89, 208),  # violet
    (247, 131, 43),  # orange
    (38, 198, 208),  # turquoise
    (240, 98, 176),  # pink
    (150, 206, 60),  # lime
    (92, 98, 214),  # indigo
    (166, 108, 66),  # brown
    (150, 220, 190),  # mint
)

# Further hues advance by the golden angle, which always lands in the widest gap. Lightness and saturation cycle, so that ids with
# similar hues differ in these. The values maximize the minimum CIELAB distance between the first thirty colours.
_GOLDEN_TURN = 0.381966
_FIRST_HUE = 0.04
_LIGHTNESS = (0.36, 0.50, 0.74)
_SATURATION = (0.90, 0.45)


def colour(index: int) -> Colour:
    """Return the colour (red, green, blue) of class id `index` >= 1, never close to black, white or grey.

    The colours of a few dozen ids are easy to distinguish. Above that, they get more similar.
    """
    if index <= len(_FIRST):
        return _FIRST[index - 1]
    step = index - len(_FIRST) - 1
    hue = (_FIRST_HUE + step * _GOLDEN_TURN) % 1.0
    lightness = _LIGHTNESS[step % len(_LIGHTNESS)]
    saturation = _SATURATION[step // len(_LIGHTNESS) % len(_SATURATION)]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def voc_colour(index: int) -> Colour:
    """Return the PASCAL VOC colour of class id `index` >= 0: black for 0, unique below 2 ** 24."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
