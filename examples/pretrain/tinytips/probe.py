"""What patches know, whether text finds it or not: a linear probe of value features on ground-truth masks.

    python -m tinytips.probe --model model --work work

Half of the held-out scenes are fitted (ridge regression of the whole things, patch by patch), mean IoU is that of the other
half's patches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytips.arguments import positive, told
from tinytips.data.held_out import held_out, middles, patch_labels
from tinytips.data.scoring import iou
from tinytips.data.store import Store
from tinytips.world.concepts import WHOLE_LIST
from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.vision import VisionTower

RIDGE = 1.0


def fit(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Ridge regression to one-hot labels: [N, D] and [N] in 0 .. classes - 1 -> weights [D, classes]."""
    square = features.T @ features + RIDGE * torch.eye(features.shape[1])
    return torch.linalg.solve(square, features.T @ F.one_hot(labels, classes).float())


@torch.inference_mode()
def probe(tower: VisionTower, store: Store) -> float:
    """Mean IoU of the second half of the scenes' patches, by a probe of the first half's."""
    grid = tower.config.grid_size
    values = torch.cat([tower.value_features(each) for each in middles(store, tower.config).split(20)])  # [N, h, w, D]
    features = F.pad(F.normalize(values, dim=-1), (0, 1), value=1.0)  # [N, h, w, D + 1]
    labels = patch_labels(store, grid)
    half = len(values) // 2
    classes = len(WHOLE_LIST) + 1  # 0 is none of them
    weights = fit(features[:half].flatten(0, 2), torch.from_numpy(labels[:half]).flatten().long(), classes)
    guesses = (features[half:] @ weights).argmax(-1).numpy().astype(np.uint8)
    return float(np.nanmean(iou(list(labels[half:]), list(guesses), classes - 1)[1:]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Probe patches on held-out scenes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a folder in the hub layout")
    parser.add_argument("--work", type=Path, required=True, help="where scenes are kept")
    parser.add_argument("--scenes", type=positive, default=200, help="how many")
    options = parser.parse_args(arguments)
    with told(parser):
        model, _ = checkpoint.load_tipsv2(options.model, torch.device("cpu"), torch.float32)
    store = held_out(options.work, options.scenes, model.config.vision)
    print(json.dumps({"miou": probe(model.vision_encoder, store)}))


if __name__ == "__main__":
    main()
