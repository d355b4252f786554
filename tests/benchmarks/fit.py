"""Compare class vectors fitted to masks of a few images with text vectors and simple classifiers, on drawn scenes.

    PYTHONPATH=examples/pretrain python tests/benchmarks/fit.py --tables known,made-up --images 5,10 --seeds 8

Scenes are 224 x 224 pixels, one window of the embedded model, so each scene is encoded once. `--cache` stores the features and the
results, so an interrupted run can continue; use another folder after a change of the code. Labels are scored at all pixels. Prints
a table in Markdown: cells are the mean over the seeds and, in brackets, the lowest. The last column is the CPU time of a fit.

Strengths and thresholds of the fit were chosen on other scenes. `--tables ceiling` estimates the upper bound: the same linear
classifier, fitted to all scenes of the pool, and to the held-out scenes themselves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.concepts import WHOLE_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.labelling.features import Features
from tipsseg.labelling.view import view_of
from tipsseg.learning.maths import Prior, Window, make_windows, solve

#: The first scene; no choice was made on these.
FIRST = FIRST_SEED + 40_000
SIDE, GRID, PATCH = 224, 16, 14
HELD_OUT, POOL = 60, 160
KITE = len(WHOLE_LIST) + 1
NEIGHBOURS = 15
RIDGE = 1.0

#: Words of no language, one for each thing of the drawn world.
MADE_UP = (
    "blarg",
    "zoofle",
    "defect type a",
    "kwix",
    "trelb",
    "vorpan",
    "gnish",
    "plonk",
    "seventeen",
    "quasfer",
    "mipto",
    "drell",
    "snarv",
    "foople",
    "jantik",
    "wubble",
    "yorp",
    "zint",
)
Bytes = NDArray[np.uint8]
Ious = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """patches [N, h, w, D]; truths [N, H, W] ids of the whole list, and KITE."""

    patches: Tensor
    truths: Bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="known,unmasked,made-up,kite")
    parser.add_argument("--images", default="1,5,10,20", help="how many have masks")
    parser.add_argument("--unlabelled", type=int, default=0, help="how many of the others the fit sees too")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--cache", type=Path, help="a folder that keeps features and results")
    options = parser.parse_args()
    model = tipsseg.load("tiny", device="cpu")
    print(
        "| words | images | " + " | ".join((*METHODS, "fit", "seconds")) + " |\n|---|---|" + "---|" * (len(METHODS) + 2)
    )
    for table in options.tables.split(","):
        if table == "ceiling":
            _ceilings(model, options.cache)
            continue
        kite = table == "kite"
        pool, held_out = (
            scenes(model, name, kite, options.cache) for name in ("pool-kite" if kite else "pool", "held-out")
        )
        for images in map(int, options.images.split(",")):
            _measure(model, table, images, options.unlabelled, options.seeds, pool, held_out, options.cache)


def _measure(
    model: tipsseg.Model,
    table: str,
    images: int,
    unlabelled: int,
    seeds: int,
    pool: Scenes,
    held_out: Scenes,
    cache: Path | None,
) -> None:
    names = {"made-up": MADE_UP, "kite": (*WHOLE_LIST, "kite")}.get(table, WHOLE_LIST)
    vocabulary = tipsseg.make_vocabulary(names, "none")
    found: dict[str, list[Ious]] = {name: [] for name in (*METHODS, "fit")}
    masked_classes = []
    seconds = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(POOL)
        chosen, others = drawn[:images], drawn[images : images + unlabelled]
        without = rng.permutation(len(WHOLE_LIST))[: len(WHOLE_LIST) // 2] + 1 if table == "unmasked" else np.array([0])
        masked_classes.append(without - 1)
        kept = cache / "results" / f"{table}-{images}-{unlabelled}-{seed}.npz" if cache else None
        if kept is None or not kept.exists():
            ious, took = _drawn(model, vocabulary, pool, held_out, chosen, others, without)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                np.savez(kept, seconds=took, ious=np.stack([ious[name] for name in found]))
        else:
            stored = np.load(kept)
            ious, took = dict(zip(found, stored["ious"], strict=True)), float(stored["seconds"])
        seconds.append(took)
        for name, values in ious.items():
            found[name].append(values)

    def cell(values: Sequence[float]) -> str:
        return f"{np.mean(values):.3f} ({min(values):.3f})"

    rows: dict[str, Sequence[slice | NDArray[np.int64]]] = {table: [slice(None)] * seeds}
    if table == "unmasked":
        rows = {"known, classes without masks": masked_classes}
    if table == "kite":
        rows = {"kite": [slice(KITE - 1, KITE)] * seeds, "known, beside the kite": [slice(0, KITE - 1)] * seeds}
    for title, parts in rows.items():
        means = {
            name: [float(each[part].mean()) for each, part in zip(ious, parts, strict=True)]
            for name, ious in found.items()
        }
        print(
            f"| {title} | {images} | {' | '.join(map(cell, means.values()))} | {np.median(seconds):.1f} |", flush=True
        )


def _drawn(
    model: tipsseg.Model,
    vocabulary: tipsseg.Vocabulary,
    pool: Scenes,
    held_out: Scenes,
    chosen: NDArray[np.int64],
    others: NDArray[np.int64],
    without: NDArray[np.int64],
) -> tuple[dict[str, Ious], float]:
    """Return the IoUs of each method with masks of the chosen images, and the fit's CPU seconds."""
    plan = view_of(model.backbone, tipsseg.LabelOptions(short_side=SIDE)).plans((SIDE, SIDE))[0]
    text = tipsseg.Labeller(model, vocabulary).vectors
    masks = np.where(np.isin(pool.truths[chosen], [*without, 0]), 255, pool.truths[chosen]).astype(np.uint8)
    patches = pool.patches[chosen]
    groups = np.full(256, -1)
    groups[1 : len(vocabulary.classes) + 1] = np.arange(len(vocabulary.classes))
    windows = [
        window
        for each, mask in zip(patches, masks, strict=True)
        for window in make_windows(each[None], plan, mask, groups)
    ]
    found = {name: _ious(method(windows, text, held_out.patches), held_out.truths) for name, method in METHODS.items()}
    features, unlabelled = (
        [Features((SIDE, SIDE), plan, each[None], torch.zeros(1, 2, each.shape[-1])) for each in some]
        for some in (patches, pool.patches[others])
    )
    began = time.process_time()
    fitted = tipsseg.learn.fit(model, features, list(masks), vocabulary, unlabelled=unlabelled)
    seconds = time.process_time() - began
    logits = held_out.patches @ torch.from_numpy(fitted.vectors).T + torch.from_numpy(fitted.biases)
    found["fit"] = _ious(logits, held_out.truths)
    return found, seconds


def _ceilings(model: tipsseg.Model, cache: Path | None) -> None:
    """Return the IoUs of the fit's classifier with more than a few images."""
    plan, temperature = (
        view_of(model.backbone, tipsseg.LabelOptions(short_side=SIDE)).plans((SIDE, SIDE))[0],
        model.backbone.temperature,
    )
    for kite in (False, True):
        names = (*WHOLE_LIST, "kite") if kite else WHOLE_LIST
        text = tipsseg.Labeller(model, tipsseg.make_vocabulary(names, "none")).vectors / temperature
        pool, held_out = (scenes(model, name, kite, cache) for name in ("pool-kite" if kite else "pool", "held-out"))
        groups = np.full(256, -1)
        groups[1 : len(names) + 1] = np.arange(len(names))
        for title, made in ((f"all {POOL} images", pool), ("the held-out scenes themselves", held_out)):
            masks = np.where(made.truths == 0, 255, made.truths)
            windows = [
                window
                for patches, mask in zip(made.patches, masks, strict=True)
                for window in make_windows(patches[None], plan, mask, groups)
            ]
            strength = torch.full((len(names),), 3.0)
            if kite:
                strength[-1] = 0.03
            prior = Prior(torch.where(strength[:, None] < 1, 0.0, text), strength, strength)
            weights, biases = solve(windows, torch.arange(len(names)), prior, 0.0)
            ious = _ious(held_out.patches @ weights.T + biases, held_out.truths)
            known = ious[: len(WHOLE_LIST)].mean()
            print(f"| ceiling, {title} | known {known:.3f} | {f'kite {ious[-1]:.3f}' if kite else ''} |", flush=True)


# ---- what the fit stands beside: windows, text vectors and held-out patches -> scores [N, h, w, P] ----


def _rows(windows: Sequence[Window], classes: int) -> tuple[Tensor, Tensor]:
    """Return the patches that are not ignored, [n, D], and the shares of the classes in them, [n, P]."""
    xs, ys = [], []
    for window in windows:
        shares = torch.zeros(GRID, GRID, classes)
        cells = window.shares.unflatten(0, (GRID, -1)).unflatten(2, (GRID, -1))  # [h, 2, w, 2, k]
        shares[..., window.groups] = cells.mean((1, 3))
        counts = shares.sum(-1) > 0.5
        xs.append(window.patches[counts])
        ys.append(shares[counts])
    return torch.cat(xs), torch.cat(ys)


def _text(windows: Sequence[Window], text: Tensor, patches: Tensor) -> Tensor:
    return patches @ text.T


def _prototypes(windows: Sequence[Window], text: Tensor, patches: Tensor) -> Tensor:
    x, y = _rows(windows, len(text))
    means = torch.nn.functional.normalize(y.T @ x, dim=1)
    return patches @ torch.where(y.sum(0)[:, None] > 0, means, text).T


def _knn(windows: Sequence[Window], text: Tensor, patches: Tensor) -> Tensor:
    x, y = _rows(windows, len(text))
    flat = patches.flatten(0, 2)
    return torch.cat(
        [y[(part @ x.T).topk(min(NEIGHBOURS, len(x)), 1).indices].mean(1) for part in flat.split(2048)]
    ).view(*patches.shape[:3], -1)


def _ridge(windows: Sequence[Window], text: Tensor, patches: Tensor) -> Tensor:
    x, y = _rows(windows, len(text))
    mean, target = x.mean(0), y.mean(0)
    weights = torch.linalg.solve((x - mean).T @ (x - mean) + RIDGE * torch.eye(x.shape[1]), (x - mean).T @ (y - target))
    return (patches - mean) @ weights + target


METHODS: dict[str, Callable[[Sequence[Window], Tensor, Tensor], Tensor]] = {
    "text alone": _text,
    "prototypes": _prototypes,
    "kNN": _knn,
    "ridge": _ridge,
}


def _ious(scores: Tensor, truths: Bytes) -> Ious:
    classes = scores.shape[-1]
    table = np.zeros((classes + 1) ** 2, np.int64)
    for part, truth in zip(scores.split(10), np.split(truths, range(10, len(truths), 10)), strict=True):
        maps = torch.nn.functional.interpolate(part.permute(0, 3, 1, 2), size=(SIDE, SIDE), mode="bilinear")
        best = maps.argmax(1).numpy() + 1
        # A truth that the list does not have is the truth of no pixel that is scored.
        counts = (truth > 0) & (truth <= classes)
        table += np.bincount(truth[counts].astype(np.int64) * (classes + 1) + best[counts], minlength=len(table))
    confusion = table.reshape(classes + 1, -1)[1:, 1:]
    both = np.diag(confusion)
    return both / np.maximum(confusion.sum(0) + confusion.sum(1) - both, 1)


# ---- scenes ----


def scenes(model: tipsseg.Model, name: str, kite: bool, cache: Path | None) -> Scenes:
    """Return the scenes of the "pool", which images are drawn from, or the "held-out" ones; with or without kites."""
    file = cache / f"{name}{'-with-kites' if kite else ''}.npz" if cache else None
    if file and file.exists():
        stored = np.load(file)
        return Scenes(torch.from_numpy(stored["patches"]), stored["truths"])
    first, count = (FIRST, HELD_OUT) if name == "held-out" else (FIRST + 20_000, POOL)
    patches, truths = [], []
    for seed in range(first, first + count):
        scene = draw_scene(seed, SIDE, SIDE)
        image, truth = scene.image.copy(), to_list(scene.truth, WHOLE_LIST)
        rng = np.random.default_rng(seed)
        # Somebody who wants kites labelled corrects images with kites; 60 % of the held-out scenes have one.
        if kite and (name != "held-out" or rng.random() < 0.6):
            _draw_kite(image, truth, rng)
        patches.append(model.encode(image).patches[0])
        truths.append(truth)
    made = Scenes(torch.stack(patches), np.stack(truths))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, patches=made.patches.numpy(), truths=made.truths)
    return made


_KITES = (
    ((210, 60, 160), (70, 220, 210)),
    ((130, 60, 190), (250, 170, 60)),
    ((40, 40, 160), (230, 90, 90)),
    ((230, 80, 40), (150, 220, 80)),
)


def _draw_kite(image: Bytes, truth: Bytes, rng: np.random.Generator) -> None:
    """Draw a rhombus in two colours with three bows, an object that the drawn world lacks."""
    tall = rng.uniform(26, 42)
    wide, turn = tall * rng.uniform(0.55, 0.75), rng.uniform(-0.6, 0.6)
    middle = rng.uniform(40, SIDE - 40), rng.uniform(36, SIDE * 0.55)
    turned = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    one, two = (np.array(colour) + rng.uniform(-15, 15, 3) for colour in _KITES[rng.integers(4)])
    spar = -tall * 0.25
    shapes = [
        ([(0, -tall), (wide, spar), (0, tall), (-wide, spar)], one),
        ([(0, -tall), (wide, spar), (0, spar)], two),
        ([(0, tall), (-wide, spar), (0, spar)], two),
    ]
    for y in (tall + 8, tall + 18, tall + 28):
        shapes.append(([(-5, y - 4), (5, y + 4), (5, y - 4), (-5, y + 4)], two))
    for points, colour in shapes:
        mask = np.zeros(truth.shape, np.uint8)
        cv2.fillPoly(mask, [np.round((np.array(points) @ turned.T + middle) * 16).astype(np.int32)], 1, shift=4)
        inside = mask.astype(bool)
        image[inside] = np.clip(colour + rng.normal(0, 5, (int(inside.sum()), 1)), 0, 255)
        truth[inside] = KITE


if __name__ == "__main__":
    main()
