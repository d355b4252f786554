"""What each step towards better labels is worth, with the embedded model on held-out drawn scenes.

    PYTHONPATH=examples/pretrain python tests/benchmarks/labels.py --scenes 200 --json labels.json

Prints tables in Markdown: the closed list with and without refinement and at several short sides; lists of three phrases with and
without a background; confidence thresholds. All scores are of pixels at the truth's own size, by `tipsseg.evaluation.metrics`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, to_list
from tinytips.world.concepts import CLOSED_LIST, WHOLE_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.evaluation.metrics import Confusion, scores
from tipsseg.evaluation.truth import IGNORED
from tipsseg.options import Refinement

#: Every thing of the drawn world once, in lists as people write them.
THREES = (
    ("panda", "tree", "road"),
    ("house", "car", "grass"),
    ("boat", "water", "rock"),
    ("flower", "umbrella", "fish"),
    ("balloon", "cloud", "sun"),
    ("mountain", "sand", "sky"),
)
THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.9)
SHORT_SIDES = (224, 336, 448)

#: Truth regions by their size, in patches at a short side of 224 pixels.
SIZE_BINS = ((0, 1), (1, 2), (2, 4), (4, 16), (16, 10_000))
PATCH_SHARE = (14 / 224) ** 2  # of the square of the short side


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    image: NDArray[np.uint8]
    leaves: NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure label quality on held-out drawn scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="tiny", help="an id, or a folder in the hub layout")
    parser.add_argument("--scenes", type=int, default=200, help="how many")
    parser.add_argument("--device", default="auto", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--tables", default=",".join(TABLES), help="which to make, with commas")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        scenes = list(pool.map(_scene, range(options.scenes)))
    model = tipsseg.load(options.model, device=options.device)
    print(
        f"{options.model} on {model.backbone.device} ({model.backbone.dtype_name}), "
        f"{len(scenes)} scenes with seeds from {FIRST_SEED:,}; tipsseg "
        f"{tipsseg.__version__}, torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads\n"
    )
    results = {name: TABLES[name](model, scenes) for name in options.tables.split(",")}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _scene(index: int) -> Scene:
    scene = draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)])
    return Scene(scene.image, scene.truth)


def labels_of(
    model: tipsseg.Model,
    scenes: Sequence[Scene],
    names: Sequence[str],
    background: str = "none",
    options: tipsseg.LabelOptions | None = None,
) -> Iterator[tuple[NDArray[np.uint16], tipsseg.LabelMap]]:
    """Truth and labels of each scene, both numbered by `names`."""
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(names, background), options)
    for scene in scenes:
        yield to_list(scene.leaves, names).astype(np.uint16), labeller.label(scene.image)


# ---- the closed list ----


def measure_closed(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    sizes = [f"{low} to {high} patches" if high < 10_000 else f"over {low}" for low, high in SIZE_BINS]
    print(f"### Closed list of {len(CLOSED_LIST)} classes\n")
    print(f"| short side | refine | mean IoU | pixel accuracy | recall of regions of {' | '.join(sizes)} | time |")
    print("|---" * (5 + len(sizes)) + "|")
    rows: list[dict[str, object]] = []
    first = 0.0
    for side in SHORT_SIDES:
        for refine in ("none", "pamr"):
            confusion = Confusion(len(CLOSED_LIST), background=False)
            found = np.zeros((len(SIZE_BINS), 2))
            seconds = []
            option = tipsseg.LabelOptions(short_side=side, refine=refine)
            began = time.perf_counter()
            for truth, label_map in labels_of(model, scenes, CLOSED_LIST, options=option):
                seconds.append(time.perf_counter() - began)
                # In a few scenes some pixels between things were drawn as none of them.
                confusion.add(np.where(truth == 0, np.uint16(IGNORED), truth), label_map.labels)
                found += found_regions(truth, label_map.labels)
                began = time.perf_counter()
            median = statistics.median(seconds)
            first = first or median
            result = scores(confusion, CLOSED_LIST)
            recall = found[:, 0] / np.maximum(found[:, 1], 1)
            print(
                f"| {side} | {refine} | {result.mean_iou:.3f} | {result.pixel_accuracy:.3f} | "
                f"{' | '.join(f'{value:.3f}' for value in recall)} | {median / first:.1f} |",
                flush=True,
            )
            rows.append(
                {
                    "short_side": side,
                    "refine": refine,
                    "mean_iou": result.mean_iou,
                    "pixel_accuracy": result.pixel_accuracy,
                    "recall_by_size": recall.tolist(),
                    "regions": found[:, 1].tolist(),
                    "relative_time": median / first,
                    "iou": dict(zip(CLOSED_LIST, result.iou.tolist(), strict=True)),
                }
            )
    print(f"\nRegions in each size: {', '.join(str(int(count)) for count in found[:, 1])}.\n")
    return rows


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


# ---- three phrases ----

_KINDS: tuple[tuple[str, Refinement], ...] = (("none", "none"), ("auto", "none"), ("auto", "pamr"))


def measure_threes(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    print("### Three phrases\n")
    print(
        "Over the scenes with the class: IoU, and recall, the share of its pixels that got it. Over the scenes without: false\n"
        f"area, the share of the image that got it. all: no background, all {len(WHOLE_LIST)} things named.\n"
    )
    kinds = ("all", "none", "auto", "auto + pamr")
    print(f"| class | {' | '.join(f'{what}, {kind}' for what in ('IoU', 'recall', 'false area') for kind in kinds)} |")
    print("|---" * 13 + "|")
    everything = _with_and_without(labels_of(model, scenes, WHOLE_LIST), len(WHOLE_LIST))
    rows: list[dict[str, list[float]]] = []
    for names in THREES:
        columns = [
            _with_and_without(labels_of(model, scenes, names, background, tipsseg.LabelOptions(refine=refine)), 3)
            for background, refine in _KINDS
        ]
        for index, name in enumerate(names):
            row = {
                what: [everything[what][WHOLE_LIST.index(name)], *(column[what][index] for column in columns)]
                for what in ("iou", "recall", "false_area")
            }
            _print_three(name, row)
            rows.append(row)
    mean = {what: np.nanmean([row[what] for row in rows], axis=0).tolist() for what in rows[0]}
    _print_three("mean", mean)
    print()
    names_of_rows = [*(name for names in THREES for name in names), "mean"]
    return [{"class": name, **row} for name, row in zip(names_of_rows, [*rows, mean], strict=True)]


def _print_three(name: str, row: dict[str, list[float]]) -> None:
    cells = [f"{value:.3f}" for what in ("iou", "recall") for value in row[what]]
    cells += ["-" if np.isnan(value) else f"{value:.2%}" for value in row["false_area"]]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _with_and_without(
    pairs: Iterator[tuple[NDArray[np.uint16], tipsseg.LabelMap]], classes: int
) -> dict[str, list[float]]:
    counts = np.zeros((classes, 3), np.int64)  # both, truth, labels; over the scenes with the class
    areas: list[list[float]] = [[] for _ in range(classes)]
    for truth, label_map in pairs:
        for index in range(classes):
            is_truth, is_label = truth == index + 1, label_map.labels == index + 1
            if is_truth.any():
                counts[index] += (is_truth & is_label).sum(), is_truth.sum(), is_label.sum()
            else:
                areas[index].append(float(is_label.mean()))
    both, true, labelled = counts.T
    return {
        "iou": (both / (true + labelled - both)).tolist(),
        "recall": (both / true).tolist(),
        "false_area": [float(np.mean(area)) if area else float("nan") for area in areas],
    }


# ---- confidence ----


def measure_confidence(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    print("### Confidence\n")
    print(
        "Precision / recall of pixels: the share of those with a class that have the right one / the share of the classes' pixels\n"
        "that got it.\n"
    )
    print("| labels | " + " | ".join(f"at least {threshold}" for threshold in THRESHOLDS) + " |")
    print("|---" * (1 + len(THRESHOLDS)) + "|")
    rows: list[dict[str, object]] = []
    kinds: tuple[tuple[str, Sequence[Sequence[str]], str, Refinement], ...] = (
        ("closed list", (CLOSED_LIST,), "none", "none"),
        ("closed list, refined", (CLOSED_LIST,), "none", "pamr"),
        ("three phrases, background auto", THREES, "auto", "none"),
        ("three phrases, background auto, refined", THREES, "auto", "pamr"),
    )
    for title, lists, background, refine in kinds:
        counts = np.zeros((3, len(THRESHOLDS)), np.int64)  # right, given, wanted
        for names in lists:
            for truth, label_map in labels_of(model, scenes, names, background, tipsseg.LabelOptions(refine=refine)):
                for column, threshold in enumerate(THRESHOLDS):
                    given = (label_map.labels > 0) & (label_map.confidence >= threshold)
                    right = given & (label_map.labels == truth)
                    counts[:, column] += right.sum(), given.sum(), (truth > 0).sum()
        precision, recall = counts[0] / counts[1], counts[0] / counts[2]
        print(
            f"| {title} | {' | '.join(f'{p:.3f} / {r:.3f}' for p, r in zip(precision, recall, strict=True))} |",
            flush=True,
        )
        rows.append({"labels": title, "precision": precision.tolist(), "recall": recall.tolist()})
    return rows


TABLES = {"closed": measure_closed, "threes": measure_threes, "confidence": measure_confidence}


if __name__ == "__main__":
    main()
