"""Measure the gain of each step towards better labels, with the embedded model on held-out drawn scenes.

    PYTHONPATH=examples/pretrain python tests/benchmarks/labels.py --scenes 200 --json labels.json

Prints tables in Markdown: lists of three phrases with and without background phrases, dtypes, parts inside wholes, and borders of
windows in rasters. Scores are over pixels at the size of the truth.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from models import CONFIGS, save_model
from numpy.typing import NDArray
from rasters import PixelPicture

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, iou, to_list
from tinytips.world.concepts import CLOSED_LIST, WHOLE_LIST, leaf_ids
from tinytips.world.scenes import Scene, draw_scene
from tipsseg.labelling import classifier
from tipsseg.labelling.blocks import BlockLabeller
from tipsseg.labelling.view import window_starts
from tipsseg.learning.fit import fit
from tipsseg.options import Dtype, Refinement
from tipsseg.types import BlockPlace

#: Every thing of the drawn world once, in lists as people write them.
THREES = (
    ("panda", "tree", "road"),
    ("house", "car", "grass"),
    ("boat", "water", "rock"),
    ("flower", "umbrella", "fish"),
    ("balloon", "cloud", "sun"),
    ("mountain", "sand", "sky"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure label quality on held-out drawn scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="tiny", help="an id, or a folder in the hub layout")
    parser.add_argument("--random", choices=tuple(CONFIGS), help="instead, a model of this size with random weights")
    parser.add_argument("--scenes", type=int, default=200, help="how many")
    parser.add_argument("--device", default="auto", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--tables", default=",".join(TABLES), help="which to make, with commas")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    scenes = [draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)]) for index in range(options.scenes)]
    with tempfile.TemporaryDirectory() as temporary:
        source = save_model(options.random, Path(temporary, "model")) if options.random else options.model
        measure(options, tipsseg.load(source, device=options.device), scenes)


def measure(options: argparse.Namespace, model: tipsseg.Model, scenes: Sequence[Scene]) -> None:
    print(
        f"{options.random or options.model} on {model.backbone.device} ({model.backbone.dtype_name}), "
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


# ---- dtypes ----


def measure_dtypes(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    print("### Dtypes\n")
    print(
        "The closed list, and classes fitted in float32 to every other scene, over the rest: mean IoU, and the share of"
    )
    print("pixels with another label than in float32 on the CPU.\n")
    print("| dtype | closed list | another label | fitted | another label |\n|---|---|---|---|---|")
    masks = [to_list(scene.truth, CLOSED_LIST) for scene in scenes]
    vocabulary, rows = tipsseg.make_vocabulary(CLOSED_LIST, "none"), list[dict[str, object]]()
    exact: dict[str, list[NDArray[np.uint8]]] = {}
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16", "int8")
    for dtype in dtypes:
        other = tipsseg.load(model.backbone.folder, device="cpu", dtype=dtype)
        encoded = [other.encode(scene.image) for scene in scenes]
        if not rows:
            fitted = fit(other, encoded[::2], masks[::2], vocabulary)
        row: dict[str, float] = {}
        for kind, classes, some in (("list", vocabulary, slice(None)), ("fit", fitted, slice(1, None, 2))):
            labeller = tipsseg.Labeller(other, classes)
            labels = [labeller.label(features).labels.astype(np.uint8) for features in encoded[some]]
            pairs = zip(exact.setdefault(kind, labels), labels, strict=True)
            row[kind] = float(np.nanmean(iou(masks[some], labels, len(CLOSED_LIST))))
            row[f"{kind} differs"] = float(np.mean([(one != two).mean() for one, two in pairs]))
        print(f"| {dtype} | ", end="")
        print("{list:.4f} | {list differs:.3%} | {fit:.4f} | {fit differs:.3%} |".format(**row), flush=True)
        rows.append({"dtype": dtype, **row})
    return rows


# ---- parts ----

#: Wholes of the drawn world with their parts.
PARTS = {
    "tree": ("crown", "trunk"),
    "panda": ("head", "body", "leg"),
    "house": ("wall", "roof", "door"),
    "car": ("body", "wheel"),
    "boat": ("hull", "sail"),
}
#: A part of each whole, and the others.
_HALVES = [
    {whole: [part for number, part in enumerate(parts) if number % 2 == half] for whole, parts in PARTS.items()}
    for half in (0, 1)
]
_ALL = [{whole: [*parts] for whole, parts in PARTS.items()}]
_ONE = [{whole: [part]} for whole, parts in PARTS.items() for part in parts]


def measure_parts(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    print("### Parts inside wholes\n")
    print(
        "Mean IoU over the scenes together, of wholes and of parts: each part is named, half of them at a time, or one at a time.\n"
        "Time to label an image from its features, all parts named, as a share of that of the flat list.\n"
    )
    print(
        "| | wholes | parts, all named | half of them | one | leg of the panda, alone | time |\n|---|---|---|---|---|---|---|"
    )
    encoded = [model.encode(scene.image) for scene in scenes]
    labeller = tipsseg.Labeller(model, [*PARTS])
    alone = [labeller.label(features) for features in encoded]
    print(f"| wholes alone | {np.mean([iou_of(scenes, alone, name) for name in PARTS]):.3f} | - | - | - | - | - |")
    rows: list[dict[str, object]] = []
    flat = 0.0
    for title, separator in (("flat list", " "), ("parts", "/")):
        row, seconds = _score_parts(model, scenes, encoded, separator)
        flat = flat or seconds
        print(
            f"| {title} | {' | '.join(f'{value:.3f}' for value in row.values())} | {seconds / flat:.2f} |", flush=True
        )
        rows.append({"labels": title, "seconds": seconds, **row})
    return rows


def measure_rules(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    """Choose the handicap of `classifier` on one half of the scenes, and report it on the other."""
    print("### The handicap of a whole's phrase among its parts, and of its parts' phrases for the whole\n")
    print(
        "Parts all named / half of them / one, then wholes.\n\n| temperatures | first half | second half |\n|---|---|---|"
    )
    rows: list[dict[str, object]] = []
    used, middle = classifier._HANDICAP, len(scenes) // 2
    encoded = [model.encode(scene.image) for scene in scenes]
    for handicap in (1e3, 0.0, 0.5, 1.0, 1.5, 2.0):
        classifier._HANDICAP = handicap
        halves = [
            _score_parts(model, scenes[half], encoded[half], "/")[0] for half in (slice(middle), slice(middle, None))
        ]
        cells = [f"{row['all']:.3f} / {row['half']:.3f} / {row['one']:.3f}, {row['wholes']:.3f}" for row in halves]
        print(f"| {'without these phrases' if handicap == 1e3 else handicap:} | {' | '.join(cells)} |", flush=True)
        rows.append({"handicap": handicap, "first": halves[0], "second": halves[1]})
    classifier._HANDICAP = used
    return rows


def _score_parts(
    model: tipsseg.Model,
    scenes: Sequence[Scene],
    encoded: Sequence[tipsseg.Features],
    separator: str,
) -> tuple[dict[str, float], float]:
    """Return the scores of wholes and parts, and the seconds that labelling took with all parts named."""
    found: list[dict[str, float]] = []
    seconds = 0.0
    for lists in (_ALL, _HALVES, _ONE):
        ious: dict[str, float] = {}
        for wanted in lists:
            names = [*PARTS, *(f"{whole}{separator}{part}" for whole, parts in wanted.items() for part in parts)]
            labeller = tipsseg.Labeller(model, names)
            begun = time.perf_counter()
            labelled = [labeller.label(features) for features in encoded]
            seconds += (time.perf_counter() - begun) * (lists is _ALL)
            # Wholes are nearly the same in all lists of one kind; those of the first list count.
            for name in names[len(PARTS) * bool(ious) :]:
                ious[name.replace("/", " ")] = iou_of(scenes, labelled, name)
        found.append(ious)
    means = [float(np.mean([iou for name, iou in ious.items() if name not in PARTS])) for ious in found]
    scores = {
        "wholes": float(np.mean([found[0][name] for name in PARTS])),
        **dict(zip(("all", "half", "one"), means, strict=True)),
        "leg": found[2]["panda leg"],
    }
    return scores, seconds


def iou_of(scenes: Sequence[Scene], labelled: Sequence[tipsseg.LabelMap], name: str) -> float:
    both = either = 0
    for scene, label_map in zip(scenes, labelled, strict=True):
        truth, mask = np.isin(scene.truth, leaf_ids(name.replace("/", " "))), label_map.mask(name)
        both += int((truth & mask).sum())
        either += int((truth | mask).sum())
    return both / either if either else float("nan")


# ---- rasters ----


def measure_seams(model: tipsseg.Model, scenes: Sequence[Scene]) -> list[dict[str, object]]:
    """Label mosaics of the scenes, and scenes larger than a window, with window weights that fade over some pixels."""
    print("### Borders of windows in rasters\n")
    print(
        "Mean IoU, and the share of pixels whose label differs from that of the next pixel, at borders of windows / elsewhere,\n"
        "though the truth does not.\n\n| fade | mosaics | large scenes |\n|---|---|---|"
    )
    names, side = [*CLOSED_LIST], model.backbone.native_size
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(names, "none"))
    same = [scene for scene in scenes if scene.truth.shape == scenes[0].truth.shape]
    nines = [same[start : start + 9] for start in range(0, len(same) - 8, 9)] or [(same * 9)[:9]]
    large = [draw_scene(FIRST_SEED + len(scenes) + index, 1200, 1600) for index in range(len(nines))]
    pictures = {
        "mosaics": [
            (_mosaic([scene.image for scene in nine]), _mosaic([to_list(scene.truth, names) for scene in nine]))
            for nine in nines
        ],
        "large": [(scene.image, to_list(scene.truth, names)) for scene in large],
    }
    rows: list[dict[str, object]] = []
    for fade in (0, 2, 7, 14, side // 2):
        row: dict[str, list[float]] = {}
        for kind, pairs in pictures.items():
            truths = [truth for _, truth in pairs]
            found = [_label_raster(labeller, image, fade) for image, _ in pairs]
            changes = np.array([_changes(*pair, side) for pair in zip(found, truths, strict=True)]).mean(0)
            row[kind] = [float(np.nanmean(iou(truths, found, len(names))[1:])), *changes.tolist()]
        cells = [f"{values[0]:.3f}, {values[1]:.3f} / {values[2]:.3f}" for values in row.values()]
        print(f"| {fade} | {' | '.join(cells)} |", flush=True)
        rows.append({"fade": fade, **row})
    return rows


def _mosaic(nine: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([np.concatenate(nine[start : start + 3], 1) for start in (0, 3, 6)])


def _label_raster(labeller: tipsseg.Labeller, image: NDArray[np.uint8], fade: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    raster = BlockLabeller(labeller, PixelPicture(image))
    raster.fade = fade
    return raster.label(BlockPlace(0, 0, 0, height, width)).labels.astype(np.uint8)


def _changes(labels: NDArray[np.uint8], truth: NDArray[np.uint8], side: int) -> tuple[float, float]:
    """Return how often labels change at borders of windows, and elsewhere, though the truth does not."""
    at, off = list[float](), list[float]()
    for axis, length in enumerate(labels.shape):
        borders = {end for start in window_starts(length, side) for end in (start, start + side) if 0 < end < length}
        changed = (np.diff(labels.astype(int), axis=axis) != 0) & (np.diff(truth.astype(int), axis=axis) == 0)
        shares = changed.mean(axis=1 - axis)
        is_border = np.isin(np.arange(1, length), [*borders])
        at += shares[is_border].tolist()
        off += shares[~is_border].tolist()
    return float(np.mean(at)), float(np.mean(off))


TABLES = {
    "threes": measure_threes,
    "dtypes": measure_dtypes,
    "parts": measure_parts,
    "rules": measure_rules,
    "seams": measure_seams,
}


if __name__ == "__main__":
    main()
