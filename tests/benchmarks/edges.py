"""Ways to better edges on four combinations: PAMR at the working size and at the image's, and label propagation on own features.

    pip install scikit-image
    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model
    PYTHONPATH=examples/pretrain python tests/benchmarks/edges.py --weak /tmp/weak/model --scenes 16

Label propagation is that of LPOSS (Stojnić et al., CVPR 2025) on the patches of a window: scores spread over a graph of the most
similar patches of each, with cosines to the power of gamma as weights, until (1 - alpha S) F = (1 - alpha) Y. A window has few
patches, so that is solved as it stands. The closed list of 24 classes; time is processor time without encoding, of the first row's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from labels import SIZE_BINS, Scene, found_regions
from models import machine
from numpy.typing import NDArray
from testbed import RECALLS, WORLDS, scenes_of
from torch import Tensor

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.concepts import CLOSED_LIST
from tipsseg.evaluation.metrics import Confusion, scores
from tipsseg.evaluation.truth import IGNORED
from tipsseg.labelling.features import Features
from tipsseg.labelling.labeller import Cosines
from tipsseg.labelling.prepare import Prepared

#: The labels of a scene, whose features are made.
Method = Callable[[tipsseg.Model, Scene, Features], NDArray[np.unsignedinteger]]


@cache
def _labeller(model: tipsseg.Model, refine: str) -> tipsseg.Labeller:
    options = tipsseg.LabelOptions(refine="pamr" if refine == "pamr" else "none")
    return tipsseg.Labeller(model, tipsseg.make_vocabulary(CLOSED_LIST, "none"), options)


def _plain(model: tipsseg.Model, scene: Scene, features: Features) -> NDArray[np.unsignedinteger]:
    return _labeller(model, "none").label(features).labels


def _pamr(model: tipsseg.Model, scene: Scene, features: Features) -> NDArray[np.unsignedinteger]:
    return _labeller(model, "pamr").label(features, guide=scene.image).labels


def _pamr_at_image(model: tipsseg.Model, scene: Scene, features: Features) -> NDArray[np.unsignedinteger]:
    labeller = _labeller(model, "pamr")
    image = Prepared(features.size, scene.image, features.plan)  # refined at the size of what is given as resized
    return labeller.assign(image, labeller.score(features)).labels


def graph(alpha: float, gamma: float, neighbours: int, spread: float | None) -> Method:
    """Label propagation; with `spread`, in patches, near patches weigh more."""

    def propagated(model: tipsseg.Model, scene: Scene, features: Features) -> NDArray[np.unsignedinteger]:
        labeller = _labeller(model, "none")
        temperature = model.backbone.temperature
        cosines = features.cosines(labeller.vectors)
        made = [
            _propagate(patches, (each / temperature).softmax(2), alpha, gamma, neighbours, spread)
            for patches, each in zip(features.patches, cosines, strict=True)
        ]
        logits = temperature * torch.stack(made).clamp(min=1e-6).log()
        return labeller.assign(features, Cosines(logits, 0)).labels

    return propagated


def _propagate(
    patches: Tensor, shares: Tensor, alpha: float, gamma: float, neighbours: int, spread: float | None
) -> Tensor:
    """[h, w, D] and [h, w, P] -> [h, w, P]."""
    height, width, _ = patches.shape
    flat = patches.flatten(0, 1)
    weights = (flat @ flat.T).clamp(min=0) ** gamma
    if spread is not None:
        places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
        weights = weights * torch.exp(-(torch.cdist(places, places) ** 2) / (2 * spread**2))
    weights.fill_diagonal_(0)
    least = weights.topk(neighbours, 1).values[:, -1:]
    weights = torch.where(weights >= least, weights, 0.0)
    weights = torch.maximum(weights, weights.T)
    scale = (weights.sum(1) + 1e-9).rsqrt()
    weights = weights * scale[:, None] * scale
    system = torch.eye(len(flat)) - alpha * weights
    return torch.linalg.solve(system, (1 - alpha) * shares.flatten(0, 1)).view_as(shares)


METHODS: Mapping[str, Method] = {
    "none": _plain,
    "pamr": _pamr,
    "pamr at the image's size": _pamr_at_image,
    "graph, alpha 0.5, gamma 3, 20 neighbours": graph(0.5, 3, 20, None),
    "graph, alpha 0.9, gamma 10, 20 near neighbours": graph(0.9, 10, 20, 3),
    "graph, alpha 0.95, gamma 3, 100 neighbours": graph(0.95, 3, 100, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure ways to better edges.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--weak", type=Path, help="the folder of the weak model; without it `tiny` alone is measured")
    parser.add_argument("--scenes", type=int, default=16, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the scenes")
    parser.add_argument("--models", default="tiny,weak", help="which, with commas")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="which, with commas")
    parser.add_argument("--methods", default=";".join(METHODS), help="which, with semicolons")
    options = parser.parse_args()
    print(f"{options.scenes} scenes with seeds from {options.first_seed:,}; {machine('torch', 'numpy')}\n")
    print(f"| model | scenes | method | mean IoU | recall of regions {' | '.join(RECALLS)} | time |")
    print("|---" * (5 + len(RECALLS)) + "|")
    worlds = {world: scenes_of(world, options.scenes, options.first_seed) for world in options.worlds.split(",")}
    for name, source in (("tiny", "tiny"), ("weak", options.weak)):
        if source is None or name not in options.models.split(","):
            continue
        model = tipsseg.load(source)
        for world, scenes in worlds.items():
            features = [model.encode(scene.image) for scene in scenes]
            first = None
            for method in options.methods.split(";"):
                cells, seconds = _measured(model, scenes, features, METHODS[method])
                first = first or seconds
                print(f"| {name} | {world} | {method} | {cells} | {seconds / first:.1f} |", flush=True)


def _measured(
    model: tipsseg.Model, scenes: Sequence[Scene], features: Sequence[Features], method: Method
) -> tuple[str, float]:
    """The scores as cells of a table, and the processor time."""
    confusion = Confusion(len(CLOSED_LIST), background=False)
    found, seconds = np.zeros((len(SIZE_BINS), 2)), 0.0
    for scene, each in zip(scenes, features, strict=True):
        truth = to_list(scene.leaves, CLOSED_LIST).astype(np.uint16)
        began = time.process_time()
        labels = method(model, scene, each).astype(np.uint8)
        seconds += time.process_time() - began
        confusion.add(np.where(truth == 0, np.uint16(IGNORED), truth), labels)
        found += found_regions(truth, labels)
    parts = [found[rows].sum(0) for rows in RECALLS.values()]
    recalls = " | ".join(f"{right / max(regions, 1):.3f}" for right, regions in parts)
    return f"{scores(confusion, CLOSED_LIST).mean_iou:.3f} | {recalls}", seconds


if __name__ == "__main__":
    main()
