"""Run-length codes of whole masks, to compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tipsseg.regions.components import Rle


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """The compressed run-length code of a whole mask [H, W]."""
    height, width = mask.shape
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
