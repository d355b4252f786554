"""Compare the labels that a tool read with the masks of the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from reading import EXACT, Ids


def lowest_iou(out: Path, form: str, labels: Mapping[str, Ids]) -> float:
    """Return the lowest IoU of a label id in an image, over the images in `labels`; 0 if a size differs from that of the mask."""
    ignored = json.loads((out / "classes.json").read_bytes())["ignore"]
    lowest = 1.0
    for image, ids in labels.items():
        with Image.open(out / "masks" / PurePosixPath(image).with_suffix(".png")) as picture:
            expected = np.asarray(picture).astype(np.int64)
        if form not in EXACT:  # the other formats do not store ignored pixels
            expected[expected == ignored] = 0
        if ids.shape != expected.shape:
            return 0.0
        for label_id in np.union1d(ids, expected):
            both, either = (ids == label_id) & (expected == label_id), (ids == label_id) | (expected == label_id)
            lowest = min(lowest, float(both.sum() / either.sum()))
    return lowest
