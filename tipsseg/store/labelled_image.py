"""An image of the manifest with its numbers in reach, and whether labels agree with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tipsseg.formats.problem import by, class_text
from tipsseg.images.decoding import LIMIT
from tipsseg.regions.components import count_labels
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import BACKGROUND, LabelArray, ignore_id
from tipsseg.util.json_values import take, take_share


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An entry of the manifest, with its numbers in reach.

    size    (height, width)
    pixels  by label id; of background and of ignored pixels too
    names   of the classes that occur, by id
    means   of their confidence
    """

    entry: ManifestEntry
    size: tuple[int, int]
    pixels: Mapping[int, int]
    names: Mapping[int, str]
    means: Mapping[int, float]


def labelled_image(entry: ManifestEntry | None, number_of_classes: int) -> LabelledImage:
    """An entry of a run with so many classes. Raises ValueError where there is none, or its names or numbers are none."""
    if entry is None:
        raise ValueError("not all that belongs to an image")
    summary = dict(entry.summary)
    size = take(summary, "height", int), take(summary, "width", int)
    if size[0] * size[1] > LIMIT.pixels:
        raise ValueError(f"{by(size)} pixels, where --max-pixels allows {LIMIT.pixels:,}")
    names: dict[int, str] = {}
    means: dict[int, float] = {}
    pixels = {
        BACKGROUND: take(take(summary, "background", dict), "pixels", int),
        ignore_id(number_of_classes): take(summary, "ignored", int),
    }
    for each in take(summary, "classes", list):
        label_id = take(each, "id", int)
        names[label_id] = take(each, "name", str)
        means[label_id] = take_share(each, "confidence")
        if label_id in pixels:
            raise ValueError(f"id {label_id} is there twice")
        pixels[label_id] = take(each, "pixels", int)
    return LabelledImage(entry, size, pixels, names, means)


def label_faults(labels: LabelArray, image: LabelledImage, names: Mapping[int, str]) -> Iterator[str]:
    """Ids that are none of the classes with these names, and numbers of pixels that are not the manifest's."""
    counts = count_labels(labels)
    known = {BACKGROUND: "background", ignore_id(len(names)): "ignored pixels"}
    known |= {label_id: class_text(names, label_id) for label_id in names}
    found = {label_id: int(counts[label_id]) for label_id in np.flatnonzero(counts).tolist()}
    if unknown := sorted(found.keys() - known):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        yield f"ids that are no class: {unknown[0]}{more}"
    for label_id, what in known.items():
        number, wanted = found.get(label_id, 0), image.pixels.get(label_id, 0)
        if number != wanted:
            yield f"{number} pixels of {what}, where the manifest says {wanted}"
