"""Masks and photographs, their pixels, and what `tipsseg eval` printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from running import Ran

Rows = Sequence[Sequence[int]]

PRED = [[0, 1, 1, 2], [0, 1, 255, 2]]
TRUTH = [[0, 1, 2, 2], [1, 255, 1, 2]]
# Left: 0-0 1-1 1-2 2-2 / 0-1 none-1 2-2, seven pixels.
TABLE = """\
in %              IoU  precision     recall      share
background      50.00      50.00     100.00      14.29
panda           25.00      50.00      33.33      42.86
tree            66.67     100.00      66.67      42.86

mean IoU              47.22   over the 3 of 3 that occur in ground truth or labels
mean class accuracy   66.67
pixel accuracy        57.14   of 7 pixels
"""


def save(path: str, ids: Rows | np.ndarray, *, palette: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([(37 * number + channel) % 256 for number in range(256) for channel in range(3)])
    image.save(path)


def save_photo(path: str, height: int = 30, width: int = 40) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng([height, width]).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(colours).resize((width, height)).save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def pixels(mask: Path | bytes) -> tuple[tuple[int, ...], bytes]:
    """The size and the ids of a mask, or of the content of its file: all of it but what it says of itself."""
    ids = np.asarray(Image.open(BytesIO(mask) if isinstance(mask, bytes) else mask))
    return ids.shape, ids.tobytes()


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "cache.db")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def result(ran: Ran, code: int = 0) -> dict[str, object]:
    """The one JSON object on stdout."""
    assert ran.code == code, ran.err
    assert ran.out.count("\n") == 1
    record = json.loads(ran.out)
    assert isinstance(record, dict)
    return record


def scores(ran: Ran, code: int = 0) -> dict[str, object]:
    """What was scored, without what was run."""
    record = result(ran, code)
    return {key: record[key] for key in ("images", "failed", "mean_iou", "pixel_accuracy", "pixels", "classes")}


def ious(ran: Ran, code: int = 0) -> dict[str, float]:
    """The IoU of each class that occurs."""
    classes = result(ran, code)["classes"]
    assert isinstance(classes, list)
    return {entry["name"]: entry["iou"] for entry in classes if entry["iou"] is not None}


def names(ran: Ran) -> list[str]:
    classes = result(ran)["classes"]
    assert isinstance(classes, list)
    return [entry["name"] for entry in classes]
