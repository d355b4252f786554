"""Measure the share of errors in the first images of `tipsseg rank`, on drawn scenes with known truth.

    PYTHONPATH=examples/pretrain:tests/support python tests/benchmarks/rank.py --scenes 320 --seeds 8 --tables errors,scenes,fit

Half of the scenes are blurred, noisy or dark, like uneven real folders. Every seed draws a folder of images from them. Prints
tables in Markdown: cells are the mean over the seeds and, in brackets, the lowest.

errors    share of all wrong pixels in the first 5, 10 and 20 % of the images, and the rank correlation with the true error
scenes    number of scenes among the first images of folders with five variants of every scene
fit       mean IoU on other scenes of a fit from the first 5 and 10 images, with their truth as masks; without and with
          images without masks from the same folder
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from entries import read_entries
from numpy.typing import NDArray
from PIL import Image

import tipsseg
from tinytips.data.scoring import FIRST_SEED, iou, to_list
from tinytips.world.concepts import WHOLE_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.commands.rank import ReviewOrder, mean_confidence
from tipsseg.features.folder import feature_path
from tipsseg.run.entry import Entry
from tipsseg.util.files import processor_name

SIZES = ((224, 336), (336, 224), (224, 300), (280, 224))
FIRST = FIRST_SEED + 60_000
SHARES = (0.05, 0.1, 0.2)
REPEATS = 5
HELD_OUT = 40
MASKED = (5, 10)
UNLABELLED = 32

LISTS: dict[str, tuple[Sequence[str], str]] = {
    "18 things, no background": (WHOLE_LIST, "none"),
    "boat, water, rock, flower, house, car": (("boat", "water", "rock", "flower", "house", "car"), "auto"),
    "panda, tree, road": (("panda", "tree", "road"), "auto"),
}

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labelled images: entries, true errors 0..1, the folder of their class tokens, and truths."""

    entries: Sequence[Entry]
    errors: Numbers
    features: Path
    truths: Sequence[Bytes]


#: Gives the places of images in an order of review.
Order = Callable[[Labelled, Sequence[int], int], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="errors,scenes,fit")
    parser.add_argument("--scenes", type=int, default=320)
    parser.add_argument("--images", type=int, default=120, help="in the folder of a seed")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--work", type=Path, help="a folder that keeps scenes and labels for the next time")
    options = parser.parse_args()
    print(f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as made:
        work = options.work or Path(made)
        for table in options.tables.split(","):
            TABLES[table](work, options.scenes, options.images, options.seeds)


# ---- the tables ----


def _errors(work: Path, scenes: int, images: int, seeds: int) -> None:
    for title, (names, background) in LISTS.items():
        found = _labelled(work, "varied", _varied(scenes), title, names, background)
        pools = [_drawn(seed, scenes, images) for seed in range(seeds)]
        measured = {
            name: np.array([_measure(order(found, pool, 0), found, pool) for pool in pools])
            for name, order in ORDERS.items()
        }
        base = measured["mean confidence"]
        print(f"{title}: {100 * found.errors.mean():.1f} % of pixels are wrong\n")
        print(
            "| order | first 5 % | first 10 % | first 20 % | rank correlation | seeds worse than mean confidence at 20 % |"
        )
        print("|---|---|---|---|---|---|")
        for name, values in measured.items():
            cells = " | ".join(f"{column.mean():.3f} ({column.min():.3f})" for column in values.T)
            print(f"| {name} | {cells} | {int((values[:, 2] < base[:, 2] - 1e-9).sum())} of {seeds} |")
        print(flush=True)


def _scenes(work: Path, scenes: int, images: int, seeds: int) -> None:
    number = images // REPEATS
    title, (names, background) = list(LISTS.items())[1]
    print(
        f"{number} scenes, each {REPEATS} times; {title}: how many scenes are among the first {number // 2} and {number} images\n"
    )
    print(f"| order | first {number // 2} | first {number} |\n|---|---|---|")
    found = _labelled(work, "repeated", _repeated(number * 2), title, names, background)
    pools = []
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).permutation(number * 2)[:number]
        pools.append([int(each) * REPEATS + copy for each in sorted(chosen) for copy in range(REPEATS)])
    for name, order in ORDERS.items():
        orders = [order(found, pool, seed) for seed, pool in enumerate(pools)]
        counts = [
            [len({place // REPEATS for place in each[:first]}) for first in (number // 2, number)] for each in orders
        ]
        print(
            "| "
            + " | ".join([name, *(f"{np.mean(column):.1f} ({min(column)})" for column in zip(*counts, strict=True))])
            + " |"
        )
    print(flush=True)


def _fit(work: Path, scenes: int, images: int, seeds: int) -> None:
    title, (names, background) = next(iter(LISTS.items()))
    found = _labelled(work, "varied", _varied(scenes), title, names, background)
    held_out = list(_varied(HELD_OUT, scenes))
    model = tipsseg.load("tiny", device="cpu")
    vocabulary = tipsseg.make_vocabulary(names, background)
    encoded = [model.encode(image) for image, _ in held_out]

    def score(labeller: tipsseg.Labeller) -> float:
        guesses = [labeller.label(each).labels for each in encoded]
        truths = [to_list(truth, names) for _, truth in held_out]
        counted = [np.where(truth == 0, 0, guess) for truth, guess in zip(truths, guesses, strict=True)]
        return float(np.nanmean(iou(truths, counted, len(names))[1:]))

    print(
        f"{title}, {HELD_OUT} other scenes, mean IoU; {score(tipsseg.Labeller(model, vocabulary)):.3f} without a fit\n"
    )

    def features_of(place: int) -> tipsseg.Features:
        return tipsseg.Features.load(_feature_file(found, place))

    def of(first: Sequence[int], others: Sequence[int], seed: int) -> float:
        kept = work / f"fit-{seed}-{len(others)}-{'-'.join(map(str, first))}.txt"  # a fit takes long
        if not kept.exists():
            masks = [np.where(found.truths[place] == 0, np.uint8(255), found.truths[place]) for place in first]
            unlabelled = [features_of(place) for place in others]
            fitted = tipsseg.learn.fit(
                model, [features_of(each) for each in first], masks, vocabulary, unlabelled=unlabelled
            )
            kept.write_text(str(score(tipsseg.Labeller(model, fitted))))
        return float(kept.read_text())

    print("| images with masks | by | without masks | mean IoU | seeds worse than random |\n|---|---|---|---|---|")
    for number, unlabelled in product(MASKED, (0, UNLABELLED)):
        by_chance: list[float] = []
        for name in ("random", "mean confidence", "rank"):
            scores = []
            for seed in range(seeds):
                pool = _drawn(seed, scenes, images)
                first = ORDERS[name](found, pool, seed)[:number]
                rest = [each for each in _random(found, pool, seed + 1000) if each not in first]
                scores.append(of(first, rest[:unlabelled], seed))
            by_chance = by_chance or scores
            worse = sum(one < other for one, other in zip(scores, by_chance, strict=True))
            cells = f"{np.mean(scores):.4f} ({min(scores):.4f}) | {worse} of {seeds}"
            print(f"| {number} | {name} | {unlabelled} | {cells} |", flush=True)


TABLES = {"errors": _errors, "scenes": _scenes, "fit": _fit}


def _drawn(seed: int, scenes: int, images: int) -> list[int]:
    """Return the images of a seed's folder, in the order of their names."""
    return sorted(np.random.default_rng(seed).permutation(scenes)[:images].tolist())


def _measure(order: Sequence[int], found: Labelled, pool: Sequence[int]) -> list[float]:
    errors = found.errors[list(order)]
    shares = [errors[: round(len(pool) * share)].sum() / errors.sum() for share in SHARES]
    return [*shares, float(np.corrcoef(-np.arange(len(order)), errors.argsort().argsort())[0, 1])]


# ---- orders ----


def _by(score: Callable[[Labelled, int], float]) -> Order:
    def order(found: Labelled, pool: Sequence[int], seed: int) -> list[int]:
        return sorted(pool, key=lambda place: -score(found, place))

    return order


def _random(found: Labelled, pool: Sequence[int], seed: int) -> list[int]:
    return [pool[place] for place in np.random.default_rng(1000 + seed).permutation(len(pool))]


def _ranked(found: Labelled, pool: Sequence[int], seed: int) -> list[int]:
    order = ReviewOrder()
    for place in pool:
        order.add(found.entries[place])
    places = {found.entries[place].image: place for place in pool}
    return [places[image] for image in order.names()]


def _confidence(found: Labelled, place: int) -> float:
    return -(mean_confidence(found.entries[place]) or 0.0)


ORDERS: dict[str, Order] = {
    "random": _random,
    "mean confidence": _by(_confidence),
    "rank": _ranked,
    "perfect": _by(lambda found, place: float(found.errors[place])),
}


# ---- images, labels and true errors ----


def _varied(number: int, first: int = 0) -> Iterator[tuple[Bytes, Bytes]]:
    """Return scenes, half of them blurred, noisy or dark."""
    for index in range(first, first + number):
        scene = draw_scene(FIRST + index, *SIZES[index % len(SIZES)])
        rng = np.random.default_rng(FIRST + index)
        image: NDArray[np.generic] = scene.image
        match rng.integers(6):
            case 0:
                image = cv2.GaussianBlur(scene.image, (0, 0), rng.uniform(1.5, 4))
            case 1:
                image = scene.image + rng.normal(0, rng.uniform(15, 45), scene.image.shape)
            case 2:
                image = scene.image * rng.uniform(0.25, 0.5)
        yield np.clip(image, 0, 255).astype(np.uint8), scene.truth


def _repeated(number: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Return every scene several times, cropped by a few pixels and slightly darker or brighter."""
    for image, truth in _varied(number, 100_000):
        for copy in range(REPEATS):
            rng = np.random.default_rng(copy)
            (top, left), light = rng.integers(0, 8, 2), rng.uniform(0.93, 1.07)
            part = slice(top, image.shape[0] - 8 + top), slice(left, image.shape[1] - 8 + left)
            yield np.clip(image[part] * light, 0, 255).astype(np.uint8), truth[part]


def _labelled(
    work: Path, kind: str, images: Iterator[tuple[Bytes, Bytes]], title: str, names: Sequence[str], background: str
) -> Labelled:
    folder, features = work / kind, work / f"{kind}-features"
    truths = []
    for number, (image, truth) in enumerate(images):
        path = folder / f"{number:05}.png"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, compress_level=1)
        truths.append(to_list(truth, names))
    paths = [folder / f"{number:05}.png" for number in range(len(truths))]
    output = work / f"{kind}-{len(paths)}-{names[0].split()[0]}-{len(names)}"
    vocabulary = tipsseg.make_vocabulary(names, background)
    tipsseg.label_folder(
        paths, vocabulary, output=output, formats=["png"], model="tiny", device="cpu", features=features, jobs=2
    )
    entries = list(read_entries(output).values())
    errors = []
    for entry, truth in zip(entries, truths, strict=True):
        with Image.open(output / "masks" / f"{Path(entry.image).stem}.png") as picture:
            wrong = np.array(picture) != truth
        # In a few scenes some pixels between things were drawn as none of them.
        errors.append((wrong & (truth > 0)).mean() if background == "none" else wrong.mean())
    return Labelled(entries, np.array(errors), features, truths)


def _feature_file(found: Labelled, place: int) -> Path:
    return feature_path(found.features, found.entries[place].input.sha256 or "")


if __name__ == "__main__":
    main()
