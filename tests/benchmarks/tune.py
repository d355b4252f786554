"""Measure the precision and recall of minimum confidences from a few images with masks, on held-out scenes.

    PYTHONPATH=examples/pretrain python tests/benchmarks/tune.py --cache /tmp/features

The scenes are those of fit.py. Every draw chooses the thresholds of all classes from the masks of some images; "in hindsight" they
are chosen on the held-out scenes themselves. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from fit import POOL, SIDE, Scenes, scenes

import tipsseg
from tinytips.world.concepts import WHOLE_LIST
from tipsseg.labelling.features import Features
from tipsseg.labelling.view import view_of
from tipsseg.learning.thresholds import STEPS, Tally, choose_thresholds, tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", default="0.9,0.95,0.98")
    parser.add_argument("--images", type=int, default=10, help="how many have masks")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--cache", type=Path, help="a folder that keeps the features")
    options = parser.parse_args()
    model = tipsseg.load("tiny", device="cpu")
    pool, held_out = (scenes(model, name, False, options.cache) for name in ("pool", "held-out"))
    tallies, others = _tallies(model, pool), _tallies(model, held_out)
    labelled, right, truth = (sum(getattr(each, name) for each in others) for name in ("labelled", "right", "truth"))
    classes = np.arange(len(WHOLE_LIST))
    print("| precision asked | draws as precise, all classes | classes as precise | recall | in hindsight | without |")
    print("|---|---|---|---|---|---|")
    for asked in map(float, options.precisions.split(",")):
        enough = (right >= asked * labelled) & (labelled > 0)
        best = np.where(enough.any(1), enough.argmax(1), STEPS)
        all_classes, single, recall = [], [], []
        for seed in range(options.draws):
            drawn = np.random.default_rng(seed).permutation(POOL)[: options.images]
            found = choose_thresholds([tallies[each] for each in drawn], asked)
            steps = np.array([round(each.min_confidence * STEPS) for each in found])
            kept, hit = labelled[classes, steps], right[classes, steps]
            all_classes.append(hit.sum() >= asked * kept.sum())
            single.append((hit >= asked * kept).mean())
            recall.append(hit.sum() / truth.sum())
        hindsight = right[classes, best].sum() / truth.sum()
        print(
            f"| {asked} | {np.mean(all_classes):.2f} | {np.mean(single):.2f} | {np.mean(recall):.3f} ({min(recall):.3f}) | "
            f"{hindsight:.3f} | {right[:, 0].sum() / truth.sum():.3f} |",
            flush=True,
        )


def _tallies(model: tipsseg.Model, made: Scenes) -> list[Tally]:
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(WHOLE_LIST, "none"))
    plan = view_of(model.backbone, tipsseg.LabelOptions(short_side=SIDE)).plans((SIDE, SIDE))[0]
    found = []
    for patches, truth in zip(made.patches, made.truths, strict=True):
        tokens = torch.zeros(1, 2, patches.shape[-1])
        labels = labeller.label(Features((SIDE, SIDE), plan, patches[None], tokens))
        found.append(
            tally(labels.labels, labels.confidence, np.where(truth == 0, 255, truth).astype(np.uint8), len(WHOLE_LIST))
        )
    return found


if __name__ == "__main__":
    main()
