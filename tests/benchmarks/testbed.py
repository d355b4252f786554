"""What ways of labelling are worth on four combinations: `tiny` and a weak model, plain drawn scenes and a harder world.

    pip install scikit-image
    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model
    PYTHONPATH=examples/pretrain python tests/benchmarks/testbed.py --weak /tmp/weak/model --scenes 200 --json testbed.json

A method that helps a good model on plain colours may hurt elsewhere: what is recommended should help in all four. The closed list
of 24 classes, scored at all pixels that have one of them. Prints a table in Markdown. Time is the median processor time of one
image, encoding included, relative to the first method on the same combination. It is that of all threads, so that other programs on
the machine matter little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from hard_world import harden
from labels import SIZE_BINS, Scene, found_regions, labels_of
from models import machine

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES
from tinytips.world.concepts import CLOSED_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.evaluation.metrics import Confusion, scores
from tipsseg.evaluation.truth import IGNORED

WORLDS = ("plain", "hard")

#: The first is what the others' time is relative to.
METHODS: Mapping[str, tipsseg.LabelOptions] = {
    "224": tipsseg.LabelOptions(),
    "224, pamr": tipsseg.LabelOptions(refine="pamr"),
    "336": tipsseg.LabelOptions(short_side=336),
    "336, pamr": tipsseg.LabelOptions(short_side=336, refine="pamr"),
    "448": tipsseg.LabelOptions(short_side=448),
    "448, pamr": tipsseg.LabelOptions(short_side=448, refine="pamr"),
    "224 and 392": tipsseg.LabelOptions(scales=(1, 1.75)),
    "224 and 392, pamr": tipsseg.LabelOptions(scales=(1, 1.75), refine="pamr"),
    "224, 392 and 672": tipsseg.LabelOptions(scales=(1, 1.75, 3)),
    "224, 392 and 672, pamr": tipsseg.LabelOptions(scales=(1, 1.75, 3), refine="pamr"),
}

#: Columns of the table: recall of the truth's regions of these of SIZE_BINS.
RECALLS = {"under 1 patch": slice(0, 1), "1 to 4": slice(1, 3), "over 16": slice(4, 5)}


@dataclass(frozen=True, slots=True)
class Result:
    """Of one method on one combination.

    Attributes:
        model: "tiny" or "weak".
        world: "plain" or "hard".
        method: Its name.
        mean_iou: Over the classes.
        recall: Of the truth's connected regions, by RECALLS.
        regions: How many there are of each size.
        seconds: Median processor time of one image.
        iou: By class.
    """

    model: str
    world: str
    method: str
    mean_iou: float
    recall: Mapping[str, float]
    regions: Mapping[str, int]
    seconds: float
    iou: Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure methods on two models and two worlds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--weak", type=Path, help="the folder of the weak model; without it `tiny` alone is measured")
    parser.add_argument("--scenes", type=int, default=200, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the scenes")
    parser.add_argument("--models", default="tiny,weak", help="which, with commas")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="which, with commas")
    parser.add_argument("--methods", default=";".join(METHODS), help="which, with semicolons")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    print(f"{options.scenes} scenes with seeds from {options.first_seed:,}; {machine('torch', 'numpy')}\n")
    worlds = {world: scenes_of(world, options.scenes, options.first_seed) for world in options.worlds.split(",")}
    print(f"| model | scenes | method | mean IoU | recall of regions {' | '.join(RECALLS)} | time |")
    print("|---" * (5 + len(RECALLS)) + "|")
    results = []
    for name, source in (("tiny", "tiny"), ("weak", options.weak)):
        if source is None or name not in options.models.split(","):
            continue
        model = tipsseg.load(source)
        for world, scenes in worlds.items():
            first = None
            for method in options.methods.split(";"):
                result = measure(model, scenes, METHODS[method], (name, world, method))
                first = first or result.seconds
                recalls = " | ".join(f"{value:.3f}" for value in result.recall.values())
                print(
                    f"| {name} | {world} | {method} | {result.mean_iou:.3f} | {recalls} | {result.seconds / first:.1f} |",
                    flush=True,
                )
                results.append(asdict(result))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def scenes_of(world: str, count: int, first_seed: int) -> Sequence[Scene]:
    """The scenes of the seeds from `first_seed` on, in the sizes of the evaluation."""

    def scene(index: int) -> Scene:
        drawn = draw_scene(first_seed + index, *SIZES[index % len(SIZES)])
        if world == "hard":
            return Scene(*harden(drawn.image, drawn.truth, first_seed + index))
        return Scene(drawn.image, drawn.truth)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(scene, range(count)))


def measure(
    model: tipsseg.Model, scenes: Sequence[Scene], options: tipsseg.LabelOptions, names: tuple[str, str, str]
) -> Result:
    """One method on one combination, whose names are those of the model, the world and the method."""
    confusion = Confusion(len(CLOSED_LIST), background=False)
    found = np.zeros((len(SIZE_BINS), 2))
    seconds = []
    began = time.process_time()
    for truth, label_map in labels_of(model, scenes, CLOSED_LIST, options=options):
        seconds.append(time.process_time() - began)
        confusion.add(np.where(truth == 0, np.uint16(IGNORED), truth), label_map.labels)
        found += found_regions(truth, label_map.labels)
        began = time.process_time()
    result = scores(confusion, CLOSED_LIST)
    parts = {name: found[rows].sum(0) for name, rows in RECALLS.items()}
    return Result(
        *names,
        mean_iou=result.mean_iou,
        recall={name: float(right / max(regions, 1)) for name, (right, regions) in parts.items()},
        regions={name: int(regions) for name, (_, regions) in parts.items()},
        seconds=statistics.median(seconds),
        iou=dict(zip(CLOSED_LIST, result.iou.tolist(), strict=True)),
    )


if __name__ == "__main__":
    main()
