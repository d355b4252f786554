"""The scenes that models are looked at on: those of the evaluation, as squares of a model's own size, and what patches are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tinytips.data.scoring import FIRST_SEED, grid_best, to_list
from tinytips.data.store import Store, drawn, middle, stored_short
from tinytips.world.concepts import WHOLE_LIST
from tipsseg.backbones.tipsv2.config import VisionConfig
from tipsseg.labelling.view import make_plan, prepare


def held_out(work: Path, count: int, config: VisionConfig) -> Store:
    """The first scenes of the evaluation; drawn on first use, kept in `work`."""
    return drawn(work / "images", count, FIRST_SEED, stored_short(config.image_size))


def middles(store: Store, config: VisionConfig) -> Tensor:
    """The middle of every image, at the model's own size: [N, 3, side, side] in [0, 1]."""
    side = config.image_size
    squares = (Image.fromarray(np.ascontiguousarray(middle(store.image(k)))) for k in range(len(store.records)))
    resized = [
        prepare(each, make_plan((each.height, each.width), side, side, config.patch_size)).resized for each in squares
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255


def patch_labels(store: Store, grid: int) -> NDArray[np.uint8]:
    """What most of a patch is, of the images' middles, [N, grid, grid]: 1 .. 18 in the order of WHOLE_LIST."""
    at = ((np.arange(grid) + 0.5) * store.short / grid).astype(int)
    truths = [to_list(middle(store.truth(index)), WHOLE_LIST) for index in range(len(store.records))]
    return np.stack([grid_best(truth, grid)[np.ix_(at, at)] for truth in truths])
