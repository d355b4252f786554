"""Summarise the labels of an image for manifest.jsonl and JSON lines, and the labels of a folder for run.json."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import Words
from tipsseg.formats.mask import MaskFacts
from tipsseg.label_map import LabelMap
from tipsseg.regions.objects import add_to_wholes, split_levels
from tipsseg.types import BACKGROUND, ConfidenceArray, ImageRef, LabelArray, LabelClass, ignore_id
from tipsseg.util.text import join_first, one_line, pluralize

#: The confidence of pixels that a person labelled.
CERTAIN = 1.0

#: Pixels summed per step.
_PIECE = 1 << 20

#: Maximum number of classes in a line, and of letters in a class name.
_NAMED = 8
_LETTERS = 40


def count_facts(label_map: LabelMap) -> dict[str, Any]:
    """Count the labels of an image. A pixel of a part counts in its whole too.

    Returns:
        `names`, `counts`, `confidence` and `present` of `MaskFacts`.
    """
    pixels, sums = _totals(label_map.labels, label_map.confidence)
    pixels, sums = add_to_wholes(pixels, label_map.classes), add_to_wholes(sums, label_map.classes)
    # The confidence of a whole is its own, not its parts'.
    levels = zip(split_levels(label_map.labels, label_map.classes), label_map.whole_confidences, strict=False)
    for labels, confidence in levels:
        own, of_level = _totals(labels, confidence)
        sums[1:] = np.where(own[1:] > 0, of_level[1:], sums[1:])
    present = None if label_map.present is None else tuple(sorted(label_map.present.ids))
    return {**class_facts(pixels, label_map.classes, mean_confidences(pixels, sums)), "present": present}


def class_facts(
    pixels: NDArray[np.int64], classes: Sequence[LabelClass], confidence: Mapping[int, float]
) -> dict[str, Any]:
    """Return `names`, `counts` and `confidence` of `MaskFacts`, from the pixels and the mean confidence by label id."""
    counts = {each: int(pixels[each]) for each in range(len(classes) + 1) if pixels[each]}
    found = {each: confidence[each] for each in counts if each in confidence}
    if ignored := int(pixels[ignore_id(len(classes))]):
        counts[_IGNORED] = ignored
    names = {each.id: each.name for each in classes if each.id in counts}
    return {"names": names, "counts": counts, "confidence": found}


#: The id of ignored pixels in counts, whatever the number of classes.
_IGNORED = 65535


def mean_confidences(pixels: NDArray[np.int64], sums: NDArray[np.float64]) -> dict[int, float]:
    """Return the mean confidence of each label id that has one, from the pixels and the summed confidence by label id."""
    both = enumerate(zip(pixels.tolist(), sums.tolist(), strict=False))
    return {each: round(total / number, 4) for each, (number, total) in both if number and not math.isnan(total)}


def corrected_facts(
    counts: NDArray[np.int64], classes: Sequence[LabelClass], before: Mapping[int, float]
) -> dict[str, Any]:
    """Count labels that a person made, as `count_facts` does; `counts` is from `count_labels`.

    Classes keep the mean confidence that they had `before`; a class that had none gets CERTAIN.
    """
    confidence = {each: before.get(each, CERTAIN) for each in range(len(classes) + 1)}
    return class_facts(add_to_wholes(counts, classes), classes, confidence)


def summary_of(facts: MaskFacts) -> dict[str, object]:
    """Return what a mask shows, for manifest.jsonl and JSON lines.

    Returns:
        `height` and `width` in pixels; `classes`: id, name, pixels, share of the image and mean confidence of the classes in the
        image; `background`: pixels, share and mean confidence of id 0 (None if it has no pixels);
        `ignored`: pixels below the minimum confidence.
        `present` are the ids of the classes that competed, unless all did.
    """

    def share(label_id: int) -> dict[str, object]:
        count = facts.counts.get(label_id, 0)
        return {
            "pixels": count,
            "share": round(count / math.prod(facts.size), 6),
            "confidence": facts.confidence.get(label_id),
        }

    found: dict[str, object] = {
        "height": facts.size[0],
        "width": facts.size[1],
        "classes": [{"id": each, "name": name, **share(each)} for each, name in facts.names.items()],
        "background": share(BACKGROUND),
        "ignored": facts.ignored,
    }
    if facts.present is not None:
        found["present"] = list(facts.present)
    return found | {key: value for key, value in facts.grid.items() if key not in found}


def image_summary(ref: ImageRef, facts: MaskFacts, files: Mapping[str, Path], reason: str) -> dict[str, object]:
    """Return the record of an image for a JSON line.

    Args:
        ref: The image.
        facts: What its mask says.
        files: Its per-image files, by format.
        reason: Why it was labelled, or why its labels stayed.

    Returns:
        `path`: path of the image; `image`: its path relative to the image root, as in COCO's file_name; `mask`: its index mask,
        None if it is no PNG; `files`: all its per-image files; `reason`; then the summary.
    """
    return {
        "path": ref.address,
        "image": ref.name,
        "mask": os.fspath(files["png"]) if "png" in files else None,
        "files": [os.fspath(file) for file in files.values()],
        "reason": reason,
        **summary_of(facts),
    }


def _totals(labels: LabelArray, confidence: ConfidenceArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixels and the summed confidence of each label id."""
    labels, confidence = cast(LabelArray, labels.reshape(-1)), cast(ConfidenceArray, confidence.reshape(-1))
    ids = int(np.iinfo(labels.dtype).max) + 1
    pixels, sums = np.zeros(ids, np.int64), np.zeros(ids, np.float64)
    for start in range(0, labels.size, _PIECE):  # the arrays below take about 20 bytes per pixel
        piece = labels[start : start + _PIECE]
        # Sum over runs of equal ids, because there are few of them.
        begins = np.ones(len(piece), np.bool_)
        np.not_equal(piece[1:], piece[:-1], out=begins[1:])
        first = np.flatnonzero(begins)
        own, lengths = piece[first], np.diff(first, append=len(piece))
        np.add.at(pixels, own, lengths)
        sums += np.bincount(own, np.add.reduceat(confidence[start : start + _PIECE], first, dtype=np.float64), ids)
    return pixels, sums


class TotalsSum:
    """Totals over images, which are added one by one. Memory grows with the number of classes, not of images."""

    def __init__(self, classes: Sequence[LabelClass]) -> None:
        self._classes = classes
        self._images = self._pixels = self._background = self._ignored = 0
        self._asked: Counter[int] | None = None  # the images in which a class competed, if not all did everywhere
        self._of_class = {each.id: [0, 0] for each in classes}  # images that contain it, and its pixels

    def add(self, facts: MaskFacts) -> None:
        """Add what the mask of an image says."""
        if facts.present is not None:
            self._asked = self._asked or Counter({each.id: self._images for each in self._classes})
        if self._asked is not None:
            self._asked.update([*self._of_class] if facts.present is None else facts.present)
        self._images += 1
        self._pixels += math.prod(facts.size)
        self._background += facts.counts.get(BACKGROUND, 0)
        self._ignored += facts.ignored
        for label_id in facts.names.keys() & self._of_class.keys():
            self._of_class[label_id][0] += 1
            self._of_class[label_id][1] += facts.counts[label_id]

    def record(self) -> dict[str, object]:
        classes = []
        for each in self._classes:
            images, pixels = self._of_class[each.id]
            share = round(pixels / max(self._pixels, 1), 6)
            asked = {} if self._asked is None else {"asked": self._asked[each.id]}
            classes.append(
                {"id": each.id, "name": each.name, "images": images, "pixels": pixels, "share": share, **asked}
            )
        return {
            "images": self._images,
            "pixels": self._pixels,
            "background": self._background,
            "ignored": self._ignored,
            "classes": classes,
        }

    def lines(self) -> Iterator[str]:
        """Yield a line with the classes that were found, largest first, and those that were never found."""
        if not self._images:
            return
        found, never = [], []
        for each in sorted(self._classes, key=lambda each: -self._of_class[each.id][1]):  # stable
            images, pixels = self._of_class[each.id]
            share = pixels / self._pixels
            percent = f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
            if images:
                found.append(f"{_short(each)} {percent} (in {images})")
            else:
                never.append(_short(each))
        lacking = f"Never found: {join_first(never, _NAMED)}." if never else ""
        if found:
            area = f"Found in {pluralize(self._images, 'image')}, by area: {join_first(found, _NAMED)}."
            yield f"{area} {lacking}".rstrip()
        elif never:
            yield lacking
        if self._asked is not None:
            asked = [f"{_short(each)} {self._asked[each.id]}" for each in self._classes]
            yield Words("Images for each name of {present}: {asked}.", asked=join_first(asked, _NAMED))


def _short(entry: LabelClass) -> str:
    name = one_line(entry.name) or f"class {entry.id}"
    name = name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."
    return f'"{name}"' if "," in name else name
