"""The order in which a person reviews the images of a run."""

from __future__ import annotations

from collections.abc import Iterable

from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import name_order


def review_order(entries: Iterable[ManifestEntry]) -> list[tuple[str, float]]:
    """The images with their scores, the highest score first; images of one score in the order of their names.

    Memory holds a name and a number per image.

    Args:
        entries: Of the manifest, in any order.

    Returns:
        The name of each image, and its `expected_error`.
    """
    scored = [(entry.image, expected_error(entry)) for entry in entries]
    return sorted(scored, key=lambda pair: (-pair[1], name_order(pair[0])))


def expected_error(entry: ManifestEntry) -> float:
    """The share of pixels, 0..1, that is wrong if the confidence of each label is the chance that it is right.

    An ignored pixel counts as wrong. An image whose mask a person corrected has 0.
    """
    if entry.corrected is not None:
        return 0.0
    numbers = entry.numbers
    height, width = numbers.size
    right = sum(each.pixels * each.confidence for each in numbers.classes)
    right += numbers.background * (background_confidence(entry) or 0.0)
    return round(min(1.0, max(0.0, 1 - right / (height * width))), 4)


def mean_confidence(entry: ManifestEntry) -> float | None:
    """The mean confidence, 0..1, of the pixels that have a label; None where no pixel has one."""
    numbers = entry.numbers
    background = background_confidence(entry)
    parts = [(each.pixels, each.confidence) for each in numbers.classes]
    parts += [] if background is None else [(numbers.background, background)]
    pixels = sum(number for number, _ in parts)
    return round(sum(number * each for number, each in parts) / pixels, 4) if pixels else None


def background_confidence(entry: ManifestEntry) -> float | None:
    """The mean confidence, 0..1, of the background; None where it is not known or there is none."""
    background = entry.summary.get("background")
    found = background.get("confidence") if isinstance(background, dict) else None
    return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else None
