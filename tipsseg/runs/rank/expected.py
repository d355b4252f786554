"""Estimate an image's share of wrong pixels, and its causes, from the manifest.

The expected error is the share of wrong pixels, with confidence as the probability of a correct label, times 1 + B. B is the share
of the image near object borders, where models are overconfident.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tipsseg.store.manifest import ManifestEntry, ObjectScore

#: The width of an object's border, as a share of the image's shorter side: the size of a patch in a window.
_BORDER = 1 / 32

#: The minimum share of the expected error for a reason to be listed.
_LEAST = 0.1


@dataclass(frozen=True, slots=True)
class Reason:
    """A part of an image's expected error.

    Attributes:
        kind: "class", "background", "ignored" or "borders".
        name: The class name; "" for the other kinds.
        share: Its share of the expected error, 0..1, rounded to two decimals.
    """

    kind: str
    name: str
    share: float

    def record(self) -> dict[str, object]:
        return {"kind": self.kind, **({"class": self.name} if self.kind == "class" else {}), "share": self.share}


def expected_error(entry: ManifestEntry) -> float:
    """Return an image's expected error, 0..1, rounded to four decimals; 0 if a person corrected its mask."""
    return round(min(1.0, sum(part for _, _, part in _parts(entry))), 4)


def reasons(entry: ManifestEntry) -> tuple[Reason, ...]:
    """Return the parts of an image's expected error, largest first."""
    parts = _parts(entry)
    total = sum(part for _, _, part in parts)
    largest = [Reason(kind, name, round(part / total, 2)) for kind, name, part in parts if part >= _LEAST * total > 0]
    return tuple(sorted(largest, key=lambda reason: -reason.share))


def mean_confidence(entry: ManifestEntry) -> float | None:
    """Return the mean confidence, 0..1, of labelled pixels; None if no pixel is labelled."""
    numbers = entry.numbers
    background = background_confidence(entry)
    parts = [(entry.pixels, entry.confidence) for entry in numbers.classes]
    parts += [] if background is None else [(numbers.background, background)]
    pixels = sum(number for number, _ in parts)
    return round(sum(number * confidence for number, confidence in parts) / pixels, 4) if pixels else None


def background_confidence(entry: ManifestEntry) -> float | None:
    """Return the mean confidence, 0..1, of the background; None if it is unknown."""
    background = entry.summary.get("background")
    value = background.get("confidence") if isinstance(background, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def border_share(objects: Iterable[ObjectScore], size: tuple[int, int]) -> float:
    """Estimate the share, 0..1, of an image of `size` (H, W) near object borders, from the boxes of the objects."""
    height, width = size
    length = sum(2 * (h + w) for _, _, _, _, h, w, _ in objects)
    return min(1.0, length * _BORDER * min(height, width) / (height * width))


def _parts(entry: ManifestEntry) -> list[tuple[str, str, float]]:
    """Return the parts of the expected error: kind, class name, and expected share of wrong pixels in the image."""
    if entry.corrected is not None:
        return []
    numbers = entry.numbers
    area = numbers.size[0] * numbers.size[1]
    background = background_confidence(entry)
    unsure = 0.0 if background is None else 1 - background
    parts = [("class", entry.name, entry.pixels * (1 - entry.confidence) / area) for entry in numbers.classes]
    parts.append(("background", "", numbers.background * unsure / area))
    parts.append(("ignored", "", numbers.ignored / area))
    wrong = sum(part for _, _, part in parts)
    return [*parts, ("borders", "", wrong * border_share(entry.objects or (), numbers.size))]
