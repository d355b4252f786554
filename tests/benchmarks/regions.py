"""Measure `--regions` on drawn scenes: true regions, damaged regions, touching objects, and time.

    PYTHONPATH=examples/pretrain python tests/benchmarks/regions.py --scenes 42

True regions are the connected regions of the truth. Damaged regions are moved by 2 pixels both ways, a tenth are merged with a
neighbour, and a fifth are missing. Pairs are two equal things that touch. Prints tables in Markdown: mean IoU of the closed list,
AP at IoU 0.5 of the things in pairs, and the median time to name regions.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from models import machine
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, iou, to_list
from tinytips.world.concepts import CLOSED_LIST, WHOLE_LIST
from tinytips.world.painter import Painter
from tinytips.world.scenes import draw_scene
from tinytips.world.shapes import quad
from tinytips.world.things import draw_car, draw_house, draw_panda, draw_tree
from tipsseg.formats.coco import encode_masks
from tipsseg.regions.components import components, encode_regions
from tipsseg.regions.naming import Regions, name_regions, paint_regions
from tipsseg.regions.shapes import decode_runs

Ids = NDArray[np.int32]

SCALES = ((1.0,), (1.0, 1.75))
MOVED, MERGED, MISSING = 2, 0.1, 0.2
PAIRS = {"panda": (draw_panda, 52), "tree": (draw_tree, 36), "house": (draw_house, 56), "car": (draw_car, 58)}


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--scenes", type=int, default=42, help="how many")
    options = parser.parse_args()
    print(f"{options.scenes} scenes, `tiny`; {machine('torch', 'numpy')}\n")
    model = tipsseg.load("tiny")
    measure_names(model, options.scenes)
    measure_pairs(model, options.scenes)
    measure_time(model)


# ---- regions ----


def numbered(truth: NDArray[np.uint8]) -> Ids:
    """Number the connected regions of a truth [H, W] from 1; 0 stays 0."""
    ids = np.zeros(truth.shape, np.int32)
    for label in np.unique(truth[truth > 0]):
        _, own = cv2.connectedComponents((truth == label).astype(np.uint8), connectivity=8)
        ids[own > 0] = own[own > 0] + ids.max()
    return ids


def damaged(ids: Ids, seed: int) -> Ids:
    """Merge a tenth of the regions with a neighbour, drop a fifth, and move the rest by 2 pixels both ways."""
    rng = np.random.default_rng(seed)
    number = int(ids.max())
    neighbours: dict[int, list[int]] = {}
    pairs: set[tuple[int, int]] = set()
    for one, other in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        touching = (one != other) & (one > 0) & (other > 0)
        pairs |= set(map(tuple, np.unique(np.stack([one[touching], other[touching]], 1), axis=0).tolist()))
    for one_id, other_id in sorted(pairs):
        neighbours.setdefault(one_id, []).append(other_id)
        neighbours.setdefault(other_id, []).append(one_id)
    table = np.arange(number + 1, dtype=np.int32)
    for region, near in neighbours.items():
        if rng.random() < MERGED:
            table[region] = table[rng.choice(near)]
    table[1:][rng.random(number) < MISSING] = 0
    moved = np.zeros_like(ids)
    moved[MOVED:, MOVED:] = table[ids][:-MOVED, :-MOVED]
    return moved


#: The regions of a scene by kind, from its true ones; None labels without regions.
KINDS: dict[str, Callable[[Ids, int], Ids | None]] = {
    "none": lambda ids, seed: None,
    "true": lambda ids, seed: ids,
    "damaged": damaged,
}


def measure_names(model: tipsseg.Model, count: int) -> None:
    """Print the mean IoU of the closed list with each kind of regions."""
    print(f"| scales | {' | '.join(KINDS)} |\n|---" + "|---" * len(KINDS) + "|")
    scenes = [draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)]) for index in range(count)]
    truths = [to_list(scene.truth, CLOSED_LIST) for scene in scenes]
    for scales in SCALES:
        labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(CLOSED_LIST, "none"), scales=scales)
        guesses: dict[str, list[NDArray[np.uint8]]] = {kind: [] for kind in KINDS}
        for seed, (scene, truth) in enumerate(zip(scenes, truths, strict=True)):
            features = model.encode(scene.image, scales=scales)
            for kind, make in KINDS.items():
                labels = labeller.label(features, regions=make(numbered(truth), seed)).labels
                guesses[kind].append(labels.astype(np.uint8))
        means = [np.nanmean(iou(truths, guesses[kind], len(CLOSED_LIST))[1:]) for kind in KINDS]
        print(f"| {','.join(f'{scale:g}' for scale in scales)} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


# ---- pairs ----


def draw_pair(seed: int) -> tuple[NDArray[np.uint8], str, Ids]:
    """Draw two equal things that touch, on grass. Return the image, the name of the things, and region ids [H, W].

    The things are 1 and 2; sky and grass follow.
    """
    rng = np.random.default_rng(seed)
    p = Painter(rng, 448, 600)
    p.fill(quad(-2, -2, p.width + 2, 110), "sky", (120, 175, 230), "blotch", 3)
    p.fill(quad(-2, 100, p.width + 2, p.height + 2), "grass", (90, 150, 60), "vertical", 10)
    name = list(PAIRS)[seed % len(PAIRS)]
    draw, room = PAIRS[name]
    ids = numbered(p.truth) + np.int32(2)
    for number, side in enumerate((-1, 1), start=1):
        before = p.image.copy()
        draw(p, p.width / 2 + side * room * rng.uniform(0.75, 0.9), 200 + rng.uniform(-4, 4), 1.0)
        ids[(p.image != before).any(axis=2)] = number
    return p.finish(), name, ids


def measure_pairs(model: tipsseg.Model, count: int) -> None:
    """Print the AP at IoU 0.5 of the things in pairs."""
    print(f"\n| scales | {' | '.join(KINDS)} |\n|---" + "|---" * len(KINDS) + "|")
    pairs = [draw_pair(FIRST_SEED + index) for index in range(count)]
    for scales in SCALES:
        labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(WHOLE_LIST, "none"), scales=scales)
        cells = []
        for make in KINDS.values():
            results: list[dict[str, object]] = []
            for number, (image, _, ids) in enumerate(pairs, start=1):
                result = labeller.label(image, regions=make(ids, number))
                own = [entry for entry in result.objects if entry.name in PAIRS]
                codes = encode_masks([entry._found for entry in own], result.shape)
                results += [
                    {
                        "image_id": number,
                        "category_id": list(PAIRS).index(entry.name),
                        "segmentation": code,
                        "score": entry.score,
                    }
                    for entry, code in zip(own, codes, strict=True)
                ]
            cells.append(f"{average_precision(pairs, results):.3f}")
        print(f"| {','.join(f'{scale:g}' for scale in scales)} | {' | '.join(cells)} |")


def average_precision(
    pairs: Sequence[tuple[NDArray[np.uint8], str, Ids]], results: Sequence[dict[str, object]]
) -> float:
    """Return pycocotools' mean average precision at an IoU of 0.5."""
    annotations = []
    for number, (_, name, ids) in enumerate(pairs, start=1):
        category = list(PAIRS).index(name)
        things = np.where(ids <= 2, ids, 0)
        regions = components((things > 0).astype(np.uint8), 1, instances=things)
        annotations += [
            {
                "id": 2 * number + index,
                "image_id": number,
                "category_id": category,
                "segmentation": code,
                "area": region.area,
                "bbox": [0, 0, 1, 1],
                "iscrowd": 0,
            }
            for index, (region, code) in enumerate(zip(regions, encode_regions(regions, ids.shape), strict=True))
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number, "height": 448, "width": 600} for number in range(1, len(pairs) + 1)],
            "categories": [{"id": index} for index in range(len(PAIRS))],
            "annotations": annotations,
        }
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(list(results)), "segm")
        scored.params.iouThrs = np.array([0.5])
        scored.params.areaRng, scored.params.areaRngLbl = [[0, 1e9]], ["all"]
        scored.evaluate()
        scored.accumulate()
    precision = scored.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


# ---- time ----


def measure_time(model: tipsseg.Model, times: int = 30) -> None:
    """Print the median time to read and name 200 regions of an image of 640 x 480 pixels, and to score its patches."""
    scene = draw_scene(FIRST_SEED, 480, 640)
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(CLOSED_LIST, "none"))
    features = model.encode(scene.image)
    result = labeller.label(features)
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.random((14, 16)).astype(np.float32), (640, 480), interpolation=cv2.INTER_CUBIC)
    regions = components((noise * 60).clip(0, 200).astype(np.uint8) + np.uint8(1), 255, 100)[:200]
    codes = encode_regions(regions, (480, 640))
    taken: dict[str, list[float]] = {"score": [], "read": [], "name": []}
    for _ in range(times):
        began = time.perf_counter()
        labeller.label(features)
        scored = time.perf_counter()
        ids = paint_regions([decode_runs(code["counts"], (480, 640)) for code in codes], (480, 640))
        read = time.perf_counter()
        name_regions(
            result.labels,
            result.confidence,
            Regions(ids=ids),
            minimum=np.zeros(len(CLOSED_LIST) + 1, np.float32),
            ignore=255,
            patch=30,
        )
        taken["score"].append(scored - began)
        taken["read"].append(read - scored)
        taken["name"].append(time.perf_counter() - read)
    medians = {name: 1000 * statistics.median(values) for name, values in taken.items()}
    print(f"\n{len(regions)} regions: " + ", ".join(f"{name} {value:.1f} ms" for name, value in medians.items()))


if __name__ == "__main__":
    main()
