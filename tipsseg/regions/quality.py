"""How well polygons fit the pixels that they were made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolygonQuality:
    """How well polygons fit: the number of objects, and the sum and the lowest of their IoUs (see `polygons.Outline.iou`)."""

    objects: int = 0
    total: float = 0.0
    worst: float = 1.0

    @classmethod
    def of(cls, ious: Iterable[float | None]) -> PolygonQuality:
        """Of objects with these IoUs; None where one has no polygons."""
        known = [iou for iou in ious if iou is not None]
        return cls(len(known), sum(known), min(known, default=1.0))

    def __add__(self, other: PolygonQuality) -> PolygonQuality:
        return PolygonQuality(self.objects + other.objects, self.total + other.total, min(self.worst, other.worst))
