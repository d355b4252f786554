"""Order the images of a run for review: the least certain first, near-duplicates of earlier images last."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipsseg.run.entry import Entry
from tipsseg.types import BACKGROUND, name_order

#: The number of images that later ones are compared with.
_COMPARED = 1000

#: Two images are near-duplicates if labels and places differ in at most this share of their pixels.
_NEAR = 0.05

#: An object's place is the cell of its centre, of 3 x 3 cells. Labels and cells are counted in bins, which some of them share.
_GRID, _BINS = 3, 128


class _Image(NamedTuple):
    corrected: bool
    confidence: float
    image: str
    shares: NDArray[np.float32]


class ReviewOrder:
    """Images in the order of their review; each takes a few hundred bytes."""

    def __init__(self) -> None:
        self._images: list[_Image] = []

    def add(self, entry: Entry) -> None:
        shares = _label_shares(entry)
        self._images.append(_Image(entry.corrected, mean_confidence(entry) or 0.0, entry.image, shares))

    def names(self) -> list[str]:
        """Return the names: by ascending mean confidence, then near-duplicates of images before them, then corrected images."""
        first, repeated, corrected = list[str](), list[str](), list[str]()
        compared = np.empty((min(len(self._images), _COMPARED), _BINS), np.float32)
        for each in sorted(self._images, key=lambda each: (each.confidence, name_order(each.image))):
            before = compared[: len(first)]
            if each.corrected:
                corrected.append(each.image)
            elif len(first) < _COMPARED and (np.abs(before - each.shares).sum(1) <= 2 * _NEAR).any():
                repeated.append(each.image)
            else:
                if len(first) < _COMPARED:
                    compared[len(first)] = each.shares
                first.append(each.image)
        return first + repeated + corrected


def mean_confidence(entry: Entry) -> float | None:
    """Return the mean confidence, 0..1, of labelled pixels; None if no pixel is labelled."""
    numbers = entry.numbers
    background = background_confidence(entry)
    parts = [(entry.pixels, entry.confidence) for entry in numbers.classes]
    parts += [] if background is None else [(numbers.background, background)]
    pixels = sum(number for number, _ in parts)
    return round(sum(number * confidence for number, confidence in parts) / pixels, 4) if pixels else None


def background_confidence(entry: Entry) -> float | None:
    """Return the mean confidence, 0..1, of the background; None if it is unknown."""
    background = entry.summary.get("background")
    value = background.get("confidence") if isinstance(background, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _label_shares(entry: Entry) -> NDArray[np.float32]:
    """Return the shares of an image's pixels by label and place, [_BINS]."""
    numbers, shares = entry.numbers, np.zeros(_BINS, np.float32)
    height, width = numbers.size
    rest = {each.id: each.pixels for each in numbers.classes}
    for label, area, y, x, h, w, _ in entry.facts.objects:
        row, column = (
            min(_GRID * (2 * at + side) // (2 * size), _GRID - 1) for at, side, size in ((y, h, height), (x, w, width))
        )
        shares[((label * _GRID + row) * _GRID + column) % _BINS] += area
        rest[label] = rest.get(label, 0) - area
    rest[BACKGROUND] = numbers.background
    for label, pixels in rest.items():
        shares[label * _GRID**2 % _BINS] += max(pixels, 0)
    return shares / np.float32(height * width)
