"""`tipsseg rank`: order the images of a run for review, the least certain first, near-duplicates of earlier images last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.folder.entry import Entry, ObjectScore
from tipsseg.folder.find import check_image_root
from tipsseg.folder.read import find_only, open_run, unlabelled_error
from tipsseg.formats.mask import MaskFacts
from tipsseg.say import Progress
from tipsseg.types import BACKGROUND, name_order, printable_path
from tipsseg.util.text import pluralize

#: The number of images that later ones are compared with.
_COMPARED = 1000

#: Two images are near-duplicates if labels and places differ in at most this share of their pixels.
_NEAR = 0.05

#: An object's place is the cell of its centre, of 3 x 3 cells. Labels and cells are counted in bins, which some of them share.
_GRID, _BINS = 3, 128


@dataclass(frozen=True, slots=True)
class Ranked:
    """An image in review order.

    Attributes:
        path: The path of the image.
        image: The name of the image in the run.
        confidence: The mean confidence, 0..1, of labelled pixels; None if no pixel is labelled.
    """

    path: Path
    image: str
    confidence: float | None

    def record(self) -> dict[str, object]:
        return {"path": printable_path(self.path), "image": self.image, "confidence": self.confidence}


def ranked_images(
    output: Path, names: Iterable[str | Path] | None, root: Path | None, limit: int | None, progress: Progress
) -> Iterator[Ranked | ImageError]:
    """Yield an error for each path in `names` that is not labelled, then the images in review order (see `rank`)."""
    check_image_root(root)
    order, corrected, chosen = ReviewOrder(), 0, None
    with open_run(output, ended=False, blocks=True) as run:
        if names is not None:
            chosen, unknown = find_only(run.cache.entries(), map(Path, names), root)
            yield from (unlabelled_error(path, output) for path in unknown)
        for image in run.images():
            if chosen is not None and image.entry.image not in chosen:
                continue
            if image.corrected:
                corrected += 1
            else:
                order.add(image.entry, image.objects())
        if corrected:
            progress.note("left_out", images=pluralize(corrected, "corrected image"))
        for name in order.names()[:limit]:
            image = run.image(name)
            yield Ranked(image.path(root), name, mean_confidence(image.entry.mask))


class _Image(NamedTuple):
    corrected: bool
    confidence: float
    image: str
    shares: NDArray[np.float32]


class ReviewOrder:
    """Images in the order of their review; each takes a few hundred bytes."""

    def __init__(self) -> None:
        self._images: list[_Image] = []

    def add(self, entry: Entry, objects: Iterable[ObjectScore]) -> None:
        confidence = mean_confidence(entry.mask) or 0.0
        self._images.append(_Image(entry.corrected, confidence, entry.image, _label_shares(entry, objects)))

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


def mean_confidence(facts: MaskFacts) -> float | None:
    """Return the mean confidence, 0..1, of labelled pixels; None if no pixel is labelled."""
    parts = [(facts.counts.get(each, 0), confidence) for each, confidence in facts.confidence.items()]
    pixels = sum(number for number, _ in parts)
    return round(sum(number * confidence for number, confidence in parts) / pixels, 4) if pixels else None


def _label_shares(entry: Entry, objects: Iterable[ObjectScore]) -> NDArray[np.float32]:
    """Return the shares of an image's pixels by label and place, [_BINS]."""
    facts, shares = entry.mask, np.zeros(_BINS, np.float32)
    height, width = facts.size
    rest = {each: facts.counts[each] for each in facts.names}
    for label, area, y, x, h, w, _ in objects:
        row, column = (
            min(_GRID * (2 * at + side) // (2 * size), _GRID - 1) for at, side, size in ((y, h, height), (x, w, width))
        )
        shares[((label * _GRID + row) * _GRID + column) % _BINS] += area
        rest[label] = rest.get(label, 0) - area
    rest[BACKGROUND] = facts.counts.get(BACKGROUND, 0)
    for label, pixels in rest.items():
        shares[label * _GRID**2 % _BINS] += max(pixels, 0)
    return shares / np.float32(height * width)
