"""What the labels of one image hold, as a record for manifest.jsonl, and for `--jsonl`: a line of JSON that other programs read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats import index_masks
from tipsseg.label_map import LabelMap
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, ImageRef

_PIECE = 1 << 20


def label_summary(label_map: LabelMap) -> dict[str, object]:
    """What the labels hold.

    height, width
    classes     for each class that occurs: id, name, pixels, share of the image and mean confidence
    background  pixels, share and mean confidence of id 0; mean confidence None where there is none
    ignored     pixels below the minimum confidence
    """
    height, width = label_map.size
    pixels, sums = _totals(label_map)
    classes = [
        {"id": entry.id, "name": entry.name, **_share(pixels[entry.id], sums[entry.id], height * width)}
        for entry in label_map.classes
        if pixels[entry.id]
    ]
    return {
        "height": height,
        "width": width,
        "classes": classes,
        "background": _share(pixels[BACKGROUND], sums[BACKGROUND], height * width),
        "ignored": int(pixels[label_map.ignore]),
    }


def image_summary(ref: ImageRef, summary: Mapping[str, object], files: Mapping[str, Path]) -> dict[str, object]:
    """The record of one image for `--jsonl`: its `label_summary` after these.

    path   the image, as it was given or found
    image  its path relative to the image root, as in COCO's file_name
    mask   its index mask; None without the format png
    files  all files of its own; given by format
    """
    mask = index_masks()[0]
    return {
        "path": os.fspath(ref.path),
        "image": ref.name,
        "mask": os.fspath(files[mask]) if mask in files else None,
        "files": [os.fspath(file) for file in files.values()],
        **summary,
    }


def _totals(label_map: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels and sum of the confidence of each label id."""
    pixels = count_labels(label_map.labels)
    sums = np.zeros(len(pixels), np.float64)
    labels, confidence = label_map.labels.reshape(-1), label_map.confidence.reshape(-1)
    # By pieces: the sums make 64-bit copies, eight times a large map.
    for start in range(0, labels.size, _PIECE):
        piece = slice(start, start + _PIECE)
        sums += np.bincount(labels[piece], confidence[piece], minlength=len(sums))
    return pixels, sums


def _share(pixels: np.int64, confidence: np.float64, size: int) -> dict[str, object]:
    return {
        "pixels": int(pixels),
        "share": round(int(pixels) / size, 6),
        "confidence": round(float(confidence) / int(pixels), 4) if pixels else None,
    }
