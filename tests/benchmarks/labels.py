"""Measure the gain of each step towards better labels, with the embedded model on held-out drawn scenes.

    PYTHONPATH=examples/pretrain python tests/benchmarks/labels.py --scenes 200 --json labels.json

Prints tables in Markdown: lists of three phrases with and without background phrases, confidence thresholds, and dtypes. Scores are
over pixels at the size of the truth.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, iou, to_list
from tinytips.world.concepts import CLOSED_LIST, WHOLE_LIST
from tinytips.world.scenes import Scene, draw_scene
from tipsseg.options import Dtype, Refinement

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
    scenes = [draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)]) for index in range(options.scenes)]
    model = tipsseg.load(options.model, device=options.device)
    print(
        f"{options.model} on {model.backbone.device} ({model.backbone.dtype_name}), "
        f"{len(scenes)} scenes with seeds from {FIRST_SEED:,}; tipsseg "
        f"{tipsseg.__version__}, torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads\n"
    )
    results = {name: TABLES[name](model, scenes) for name in options.tables.split(",")}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def labels_of(
    model: tipsseg.Model,
    scenes: Sequence[Scene],
    names: Sequence[str],
    background: str = "none",
    options: tipsseg.LabelOptions | None = None,
) -> Iterator[tuple[NDArray[np.uint16], tipsseg.LabelMap]]:
    """Return the truth and the labels of each scene, both numbered by `names`."""
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(names, background), options)
    for scene in scenes:
        yield to_list(scene.truth, names).astype(np.uint16), labeller.label(scene.image)


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


# ---- dtypes ----


def measure_dtypes(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    print("### Dtypes\n\nThe closed list, against the same model in float32 on the CPU.\n")
    print("| dtype | mean IoU | pixels with another label |\n|---|---|---|")
    folder, rows = model.backbone.folder, list[dict[str, object]]()
    exact: list[NDArray[np.unsignedinteger]] = []
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16", "int8")
    for dtype in dtypes:
        other = tipsseg.load(folder, device="cpu", dtype=dtype)
        truths, maps = zip(*labels_of(other, scenes, CLOSED_LIST), strict=True)
        labels = [label_map.labels for label_map in maps]
        exact = exact or labels
        mean = float(np.nanmean(iou(truths, labels, len(CLOSED_LIST))))
        differ = float(np.mean([(one != two).mean() for one, two in zip(exact, labels, strict=True)]))
        print(f"| {dtype} | {mean:.4f} | {differ:.3%} |", flush=True)
        rows.append({"dtype": dtype, "mean_iou": mean, "differ": differ})
    return rows


TABLES = {"threes": measure_threes, "confidence": measure_confidence, "dtypes": measure_dtypes}


if __name__ == "__main__":
    main()
