"""Run-length codes of whole masks, to compare with."""

from __future__ import annotations

import warnings
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


class Rle(TypedDict):
    """A mask as COCO's compressed run-length code: `size` [h, w] and `counts`, ASCII text."""

    size: list[int]
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """The compressed run-length code of a whole mask [H, W]."""
    height, width = mask.shape
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def decode_rle(counts: str, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask [H, W] of a run-length code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 2 warns of pycocotools' own array
        return np.array(coco_mask.decode({"size": list(size), "counts": counts}), np.bool_)
