"""What a tool made of label files, compared with the masks of the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from reading import EXACT, Ids


def least_iou(out: Path, form: str, found: Mapping[str, Ids]) -> float:
    """The least IoU of a label id in an image, over the images that were found; 0 where one has another size than its mask."""
    ignored = json.loads((out / "classes.json").read_bytes())["ignore"]
    least = 1.0
    for image, ids in found.items():
        with Image.open(out / "masks" / PurePosixPath(image).with_suffix(".png")) as picture:
            wanted = np.asarray(picture).astype(np.int64)
        if form not in EXACT:  # there is no "ignored" in the others
            wanted[wanted == ignored] = 0
        if ids.shape != wanted.shape:
            return 0.0
        for label_id in np.union1d(ids, wanted):
            both, either = (ids == label_id) & (wanted == label_id), (ids == label_id) | (wanted == label_id)
            least = min(least, float(both.sum() / either.sum()))
    return least
