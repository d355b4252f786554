"""Compare methods of labelling on four combinations: `tiny` and a weak model, plain drawn scenes and a harder world.

    pip install scikit-image
    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model
    PYTHONPATH=examples/pretrain python tests/benchmarks/testbed.py --weak /tmp/weak/model --scenes 200 --json testbed.json

A method that helps a good model on plain colours may hurt elsewhere, so a recommended method should help in all four combinations.
The lists are those of `tinytips.evaluate`: the closed list of 24 classes, whole things, and separate parts. Scores are over all
pixels with one of the classes. Prints a table in Markdown. Time is the median CPU time of all threads per image, encoding included,
relative to the first method on the same combination. CPU time depends little on other programs.

To measure the scenes in parts, use `--first-seed` and `--json`, then `--merge` to print the table of all parts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hard_world import harden
from models import machine
from numpy.typing import NDArray

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, to_list
from tinytips.world.concepts import CLOSED_LIST, LEAF_LIST, WHOLE_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.learning.metrics import Confusion, scores
from tipsseg.learning.truth import IGNORED
from tipsseg.options import REFINEMENTS

WORLDS = ("plain", "hard")
LISTS: Mapping[str, Sequence[str]] = {"closed": CLOSED_LIST, "whole": WHOLE_LIST, "parts": LEAF_LIST}

#: Short sides in pixels, and scales of 224.
SIDES = (224, 336, 448)
SCALES: Sequence[tuple[float, ...]] = ((1, 2), (1, 1.75), (1.25, 1.75), (1, 1.75, 3))


def _methods() -> dict[str, tipsseg.LabelOptions]:
    found = {}
    for refine in REFINEMENTS:
        end = "" if refine == "none" else f", {refine}"
        for side in SIDES:
            found[f"short side {side}{end}"] = tipsseg.LabelOptions(short_side=side, refine=refine)
        for scales in SCALES:
            found[f"scales {','.join(f'{each:g}' for each in scales)}{end}"] = tipsseg.LabelOptions(
                scales=scales, refine=refine
            )
    return found


METHODS: Mapping[str, tipsseg.LabelOptions] = _methods()

#: Truth regions by their size, in patches at a short side of 224 pixels.
SIZE_BINS = ((0, 1), (1, 2), (2, 4), (4, 16), (16, 10_000))
PATCH_SHARE = (14 / 224) ** 2  # of the square of the short side

#: Columns of the table: recall of the truth's regions of these of SIZE_BINS.
RECALLS = {"under 1 patch": slice(0, 1), "1 to 4": slice(1, 3), "over 16": slice(4, 5)}


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    image: NDArray[np.uint8]
    leaves: NDArray[np.uint8]


#: Model, world, list and method.
Case = tuple[str, str, str, str]


@dataclass(slots=True)
class Counts:
    """What one method came to with one list on one combination.

    Attributes:
        classes: The names of the list.
        confusion: Pixels, as `Confusion` counts them.
        found: By SIZE_BINS: the sum of the recalls of the truth's connected regions, and their number.
        seconds: Processor time of each image.
    """

    classes: Sequence[str]
    confusion: Confusion
    found: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(SIZE_BINS), 2)))
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, title: str) -> Counts:
        """Create empty counts."""
        return cls(LISTS[title], Confusion(len(LISTS[title]), background=False))

    def add(self, truth: NDArray[np.uint16], labels: NDArray[np.unsignedinteger], seconds: float) -> None:
        """Count an image. Truth 0 is none of the classes."""
        self.confusion.add(np.where(truth == 0, np.uint16(IGNORED), truth), labels)
        self.found += found_regions(truth, labels)
        self.seconds.append(seconds)

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"confusion": self.confusion.counts.tolist(), "found": self.found.tolist(), "seconds": self.seconds}

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Add counts from `record`."""
        self.confusion.counts += np.array(record["confusion"])
        self.found += np.array(record["found"])
        self.seconds += record["seconds"]

    def row(self, first: float, shown: Sequence[str]) -> str:
        """Return the cells of a table: scores, recalls, IoU of the classes to show, time relative to the first method."""
        result = scores(self.confusion, self.classes)
        parts = [self.found[rows].sum(0) for rows in RECALLS.values()]
        cells = [f"{result.mean_iou:.3f}", f"{result.pixel_accuracy:.3f}"]
        cells += [*(f"{right / max(regions, 1):.3f}" for right, regions in parts)]
        iou = dict(zip(self.classes, result.iou.tolist(), strict=True))
        cells += [f"{iou[name]:.3f}" if name in iou else "" for name in shown]
        return " | ".join([*cells, f"{statistics.median(self.seconds) / first:.1f}"])


def found_regions(truth: NDArray[np.uint16], labels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float64]:
    """For each size the sum of the recalls of the truth's connected regions, and their number: [sizes, 2]. Truth 0 is no region."""
    found = np.zeros((len(SIZE_BINS), 2))
    patch = min(truth.shape) ** 2 * PATCH_SHARE
    for label in np.unique(truth[truth > 0]):
        _, numbered, stats, _ = cv2.connectedComponentsWithStats((truth == label).astype(np.uint8), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        right = np.bincount(numbered[labels == label], minlength=len(areas) + 1)[1:]
        for row, (low, high) in enumerate(SIZE_BINS):
            chosen = (areas >= low * patch) & (areas < high * patch) & (areas >= 16)
            found[row] += (right[chosen] / areas[chosen]).sum(), chosen.sum()
    return found


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
    parser.add_argument("--lists", default="closed", help=f"which of {', '.join(LISTS)}, with commas")
    parser.add_argument("--methods", default=";".join(METHODS), help="which, with semicolons")
    parser.add_argument("--show", default="", help="also the IoU of these classes, with commas")
    parser.add_argument("--json", type=Path, help="also write the counts here")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="print the table of counts that --json wrote, and no more"
    )
    options = parser.parse_args()
    shown = [name for name in options.show.split(",") if name]
    if options.merge:
        print_table(merged(options.merge), shown)
        return
    print(f"{options.scenes} scenes with seeds from {options.first_seed:,}; {machine('torch', 'numpy')}\n")
    methods = {name: METHODS[name] for name in options.methods.split(";")}
    worlds = {world: scenes_of(world, options.scenes, options.first_seed) for world in options.worlds.split(",")}
    counts: dict[Case, Counts] = {}
    for name, source in (("tiny", "tiny"), ("weak", options.weak)):
        if source is None or name not in options.models.split(","):
            continue
        model = tipsseg.load(source)
        for world, scenes in worlds.items():
            for method, how in methods.items():
                for title, found in measure(model, scenes, how, options.lists.split(",")).items():
                    counts[name, world, title, method] = found
    print_table(counts, shown)
    if options.json:
        records = [{"case": case, **found.record()} for case, found in counts.items()]
        options.json.write_text(json.dumps(records) + "\n")


def merged(paths: Sequence[Path]) -> dict[Case, Counts]:
    """Sum the counts of several parts."""
    total: dict[Case, Counts] = {}
    for path in paths:
        for record in json.loads(path.read_text()):
            model, world, title, method = record["case"]
            total.setdefault((model, world, title, method), Counts.of(title)).add_record(record)
    return total


def print_table(counts: Mapping[Case, Counts], shown: Sequence[str]) -> None:
    """Print a table in Markdown, and the number of regions of each size."""
    columns = " | ".join([*RECALLS, *shown, "time"])
    print(f"| model | scenes | list | method | mean IoU | pixel accuracy | recall of regions {columns} |")
    print("|---" * (7 + len(RECALLS) + len(shown)) + "|")
    first: dict[tuple[str, str, str], float] = {}
    for case, found in counts.items():
        seconds = first.setdefault(case[:3], statistics.median(found.seconds))
        print(f"| {' | '.join(case)} | {found.row(seconds, shown)} |")
    for (model, world, title), found in {case[:3]: found for case, found in counts.items()}.items():
        regions = ", ".join(str(int(found.found[rows, 1].sum())) for rows in RECALLS.values())
        print(f"\n{model}, {world}, {title}: {len(found.seconds)} scenes, regions of these sizes: {regions}", end="")
    print()


def scenes_of(world: str, count: int, first_seed: int) -> Sequence[Scene]:
    """Return the scenes of the seeds from `first_seed` on, in the sizes of the evaluation."""

    def scene(seed: int) -> Scene:
        drawn = draw_scene(seed, *SIZES[(seed - FIRST_SEED) % len(SIZES)])
        return Scene(*harden(drawn.image, drawn.truth, seed)) if world == "hard" else Scene(drawn.image, drawn.truth)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(scene, range(first_seed, first_seed + count)))


def measure(
    model: tipsseg.Model, scenes: Sequence[Scene], options: tipsseg.LabelOptions, titles: Sequence[str]
) -> dict[str, Counts]:
    """One method on one combination, by the name of the list. An image is encoded once; that time counts for each list."""
    labellers = {
        title: tipsseg.Labeller(model, tipsseg.make_vocabulary(LISTS[title], "none"), options) for title in titles
    }
    counts = {title: Counts.of(title) for title in titles}
    for scene in scenes:
        began = time.process_time()
        features = model.encode(scene.image, short_side=options.short_side, scales=options.scales)
        encoding = time.process_time() - began
        for title, labeller in labellers.items():
            began = time.process_time()
            labels = labeller.label(features, guide=scene.image).labels
            seconds = encoding + time.process_time() - began
            counts[title].add(to_list(scene.leaves, LISTS[title]).astype(np.uint16), labels, seconds)
    return counts


if __name__ == "__main__":
    main()
