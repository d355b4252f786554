"""Measure `tipsseg audit` on drawn scenes whose truth has planted errors.

    PYTHONPATH=examples/pretrain python tests/benchmarks/audit.py --scenes 60

Of the connected regions of the truth, 5 % get another class, 5 % lose their label, and rectangles with a random class are added,
one for 20 regions. Prints precision, and the share of the planted errors that are among the first 10 % of the regions, in the order
of the audit, of the mean confidence of the model in each region, and at random.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from models import machine
from numpy.typing import NDArray
from regions import numbered

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, to_list
from tinytips.world.concepts import CLOSED_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.commands.audit import find_doubts

WRONG, DROPPED, INVENTED = 0.05, 0.05, 0.05
FIRST = 0.1

#: Regions of fewer pixels are left alone.
SMALLEST = 16

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A region of the labels, or a thing without a label.

    Attributes:
        score: The score of the audit.
        confidence: The mean confidence of the model.
        error: The number of the planted error that it shows; None if there is none.
    """

    score: float
    confidence: float
    error: int | None


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60, help="how many")
    options = parser.parse_args()
    model = tipsseg.load("tiny")
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(CLOSED_LIST, "none"))
    candidates: list[Candidate] = []
    planted = 0
    for index in range(options.scenes):
        scene = draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)])
        result = labeller.label(scene.image)
        given, instances, errors = plant(to_list(scene.truth, CLOSED_LIST), np.random.default_rng(index))
        doubts = find_doubts(
            result.labels,
            result.confidence,
            given,
            instances,
            classes=len(CLOSED_LIST),
            patch=14 * min(given.shape) / 224,
        )
        for doubt in doubts:
            y, x, h, w = doubt.region.box
            mask = np.zeros(given.shape, np.bool_)
            mask[y : y + h, x : x + w] = doubt.region.mask
            shown = [
                number for number, error in enumerate(errors) if 2 * (mask & error).sum() > min(mask.sum(), error.sum())
            ]
            error = planted + shown[0] if shown else None
            candidates.append(Candidate(doubt.score, float(result.confidence[mask].mean()), error))
        planted += len(errors)
    print(
        f"{options.scenes} scenes, {len(candidates)} regions, {planted} planted errors; {machine('torch', 'numpy')}\n"
    )
    print("| order | precision of the first 10 % | planted errors among them |\n|---|---|---|")
    rng = np.random.default_rng(0)
    orders = {
        "audit": np.argsort([-each.score for each in candidates], kind="stable"),
        "mean confidence": np.argsort([each.confidence for each in candidates], kind="stable"),
        "random": rng.permutation(len(candidates)),
    }
    for name, order in orders.items():
        first = [candidates[place] for place in order[: round(FIRST * len(candidates))]]
        right = [each.error for each in first if each.error is not None]
        print(f"| {name} | {len(right) / len(first):.3f} | {len(set(right)) / planted:.3f} |")


def plant(
    truth: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Ids, Sequence[NDArray[np.bool_]]]:
    """Return a truth with planted errors, its regions, and the pixels of each error."""
    given, instances = truth.copy(), numbered(truth)
    number = int(instances.max())
    errors = []
    for region in range(1, number + 1):
        mask = instances == region
        draw = rng.random()
        if mask.sum() < SMALLEST or draw > WRONG + DROPPED:
            continue
        if draw < WRONG:
            given[mask] = rng.choice([label for label in range(1, len(CLOSED_LIST) + 1) if label != given[mask][0]])
        else:
            given[mask] = instances[mask] = 0
        errors.append(mask)
    for _ in range(rng.binomial(number, INVENTED)):
        side = int(min(truth.shape) * rng.uniform(0.08, 0.25))
        top, left = (int(rng.integers(0, length - side)) for length in truth.shape)
        mask = np.zeros(truth.shape, np.bool_)
        mask[top : top + side, left : left + side] = True
        given[mask] = rng.integers(1, len(CLOSED_LIST) + 1)
        instances[mask] = instances.max() + 1
        errors.append(mask)
    return given, instances, errors


if __name__ == "__main__":
    main()
