"""Measure what each option adds to the quality of labels, with the embedded model on drawn scenes that chose none of its numbers.

    PYTHONPATH=examples/pretrain python tests/benchmarks/quality.py --scenes 63

Prints tables in Markdown, with intervals of 95 % by bootstrap over scenes: refinements and scales in two worlds, confidences,
regions, parts at minimum confidences, names of each image, and fits. Drawn scenes favour refinement by colour.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from labels import PARTS, iou_of
from numpy.typing import NDArray

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, to_list
from tinytips.world.concepts import CLOSED_LIST, WHOLE_LIST
from tinytips.world.scenes import Scene, draw_scene
from tipsseg.backbones.workers import limit_torch_threads
from tipsseg.labelling.classifier import make_classifier
from tipsseg.learning import fit as fitting
from tipsseg.learning.maths import Prior, draw_pieces, make_windows, solve
from tipsseg.options import REFINEMENTS
from tipsseg.options.records import LabelOptions
from tipsseg.regions.naming import Regions, are_rough, name_regions
from tipsseg.vocabulary.fitted import FittedVocabulary

#: The first seed; others were used to choose numbers.
_FIRST = FIRST_SEED + 900_000

Ids = NDArray[np.uint8]


# ---- scores ----


class Confusion:
    """The confusion matrix of each scene, for means and intervals over scenes."""

    def __init__(self, classes: int) -> None:
        self._size, self._scenes = classes + 1, list[NDArray[np.int64]]()

    def add(self, truth: Ids, labels: NDArray[Any]) -> None:
        """Count a scene. Ignored pixels count as background."""
        found = np.where(labels < self._size, labels, 0).astype(np.int64)
        pairs = np.bincount((truth.astype(np.int64) * self._size + found).ravel(), minlength=self._size**2)
        self._scenes.append(pairs.reshape(self._size, self._size))

    def text(self) -> str:
        """Return the mean IoU over the classes, with its interval."""
        scenes = np.stack(self._scenes)
        rng = np.random.default_rng(0)
        drawn = [_mean_iou(scenes[rng.integers(len(scenes), size=len(scenes))].sum(0)) for _ in range(300)]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return f"{_mean_iou(scenes.sum(0)):.3f} [{low:.3f}, {high:.3f}]"


def _mean_iou(table: NDArray[np.int64]) -> float:
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    return float(np.mean(both[1:][either[1:] > 0] / either[1:][either[1:] > 0]))


_BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)


class Reliability:
    """How often pixels are right, by confidence."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 100))  # pixels, confidence, right
        self._kept = np.zeros(3)  # right with at least 0.9, all with at least 0.9, right

    def add(self, truth: Ids, label_map: tipsseg.LabelMap) -> None:
        confidence, right = label_map.confidence.ravel(), (label_map.labels == truth).ravel()
        cells = np.minimum((confidence * 100).astype(int), 99)
        for row, weights in enumerate((None, confidence, right)):
            self._counts[row] += np.bincount(cells, weights, 100)
        sure = confidence >= 0.9
        self._kept += (right & sure).sum(), sure.sum(), right.sum()

    def text(self) -> str:
        """Return five bins, the expected calibration error, and what a minimum of 0.9 keeps of the right pixels, how precisely."""
        pixels, confidence, right = self._counts
        edges = [round(edge * 100) for edge in _BINS]
        bins = [right[low:high].sum() / max(pixels[low:high].sum(), 1) for low, high in pairwise(edges)]
        error = np.abs(confidence - right).sum() / pixels.sum()
        kept = f"{self._kept[0] / self._kept[2]:.3f} | {self._kept[0] / max(self._kept[1], 1):.4f}"
        return f"{' | '.join(f'{value:.3f}' for value in bins)} | {error:.4f} | {kept}"


# ---- worlds ----


def draw_textured(scene: Scene, seed: int) -> Scene:
    """Return a scene with a texture on every surface, blurred, with noise, and compressed as JPEG."""
    rng, truth = np.random.default_rng([seed, 7]), scene.truth
    pixels = scene.image.astype(np.float32)
    for leaf in np.unique(truth):
        inside = truth == leaf
        texture = np.zeros(truth.shape, np.float32)
        for cell in (2, 4, 8, 16, 32):
            coarse = rng.normal(0, cell**0.5, [length // cell + 1 for length in truth.shape]).astype(np.float32)
            texture += cv2.resize(coarse, truth.shape[::-1], interpolation=cv2.INTER_CUBIC)
        grey = (texture - texture[inside].mean()) / max(float(texture[inside].std()), 1e-3)
        pixels[inside] += (grey[inside] * rng.uniform(5, 25))[:, None] * rng.uniform(0.6, 1.4, 3) + rng.normal(0, 8, 3)
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.5)).astype(np.float32)
    pixels += rng.normal(0, rng.uniform(1, 8), truth.shape).astype(np.float32)[..., None]
    found = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", found[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))])[1]
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return replace(scene, image=np.ascontiguousarray(image[..., ::-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Worlds:
    model: tipsseg.Model
    plain: Sequence[Scene]
    textured: Sequence[Scene]


# ---- tables ----


def _begin(title: str, text: str, *heads: str) -> None:
    print(f"\n### {title}\n\n{text}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)


_TWO_SCALES: Mapping[str, Any] = {"scales": (1, 1.75)}


def measure_refinements(worlds: Worlds) -> None:
    _begin(
        "Refinements",
        "Closed list of 24 classes, `--background none`: mean IoU; processor time over that without options.",
        *("`--scales`", "`--refine`", "plain", "textured", "time"),
    )
    bars: list[str] = []
    names, base = CLOSED_LIST, 0.0
    for scales in ({}, _TWO_SCALES):
        for refine in REFINEMENTS:
            labeller = tipsseg.Labeller(
                worlds.model, tipsseg.make_vocabulary(names, "none"), LabelOptions(refine=refine, **scales)
            )
            cells, seconds = [], 0.0
            for scenes in (worlds.plain, worlds.textured):
                score, bar = Confusion(len(names)), Reliability()
                for scene in scenes:
                    began = time.process_time()
                    found = labeller.label(scene.image)
                    seconds += time.process_time() - began
                    truth = to_list(scene.truth, names)
                    score.add(truth, found.labels)
                    bar.add(truth, found)
                cells.append(score.text())
                bars.append(
                    f"| {'1,1.75' if scales else '1'} | {refine} | {bar.text()} |" if scenes is worlds.plain else ""
                )
            base = base or seconds
            print(
                f"| {'1,1.75' if scales else '1'} | {refine} | {' | '.join(cells)} | {seconds / base:.1f} |", flush=True
            )
    heads = [f"{low:g} to {high:g}" for low, high in pairwise(_BINS)]
    _begin(
        "Confidences",
        "The share of right pixels by confidence (plain); the expected calibration error; the share of the right pixels that a\n"
        "minimum of 0.9 keeps, and its precision.",
        *("`--scales`", "`--refine`", *heads, "error", "kept", "precision"),
    )
    print("\n".join(filter(None, bars)), flush=True)


def true_regions(truth: Ids) -> NDArray[np.int32]:
    """Return the connected regions of the truth, 1..R."""
    ids, count = np.zeros(truth.shape, np.int32), 0
    for leaf in np.unique(truth):
        number, found = cv2.connectedComponents((truth == leaf).astype(np.uint8), connectivity=8)
        ids[found > 0] = found[found > 0] + count
        count += number - 1
    return ids


def _moved(ids: NDArray[np.int32], by: int) -> NDArray[np.int32]:
    return np.roll(ids, (by, by), (0, 1))


def _damaged(ids: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """Move regions by two pixels, merge a tenth with another, and lose a fifth."""
    found, count = _moved(ids, 2), int(ids.max())
    for number in range(1, count + 1):
        chance = rng.random()
        if chance < 0.3:
            found[found == number] = 0 if chance < 0.2 else rng.integers(1, count + 1)
    return found


def measure_regions(worlds: Worlds) -> None:
    _begin(
        "Regions",
        "Closed list, plain scenes: mean IoU with true regions, damaged ones (moved by 2 pixels, a tenth merged, a fifth missing)\n"
        "and moved ones; in how many scenes their edges are called rough, true ones first.",
        *("`--refine`", "`--regions-margin`", "none", "true", "damaged", "moved by 2", "moved by 4", "rough"),
    )
    names, rng = CLOSED_LIST, np.random.default_rng(5)
    truths = [to_list(scene.truth, names) for scene in worlds.plain]
    true = [true_regions(truth) for truth in truths]
    given = [true, [_damaged(ids, rng) for ids in true], *([_moved(ids, by) for ids in true] for by in (2, 4))]
    for refine in REFINEMENTS:
        labeller = tipsseg.Labeller(worlds.model, tipsseg.make_vocabulary(names, "none"), LabelOptions(refine=refine))
        found = [labeller.label(scene.image) for scene in worlds.plain]
        for margin in (0,) if refine == "none" else (0, 1.5, 3, 5):
            cells, rough = [_score(truths, [each.labels for each in found])], list[str]()
            for regions in given:
                named = [
                    name_regions(
                        each.labels,
                        each.confidence,
                        Regions(ids=ids, margin=margin) if margin else Regions(ids=ids),
                        minimum=np.zeros(len(names) + 1, np.float32),
                        ignore=255,
                        patch=labeller.view.patch_side(each.shape),
                    )
                    for each, ids in zip(found, regions, strict=True)
                ]
                cells.append(_score(truths, [each.labels for each in named]))
                if not margin:  # else their edges are already those of the labels
                    patches = [labeller.view.patch_side(each.shape) for each in found]
                    parts = zip(found, regions, named, patches, strict=True)
                    count = sum(
                        are_rough(each.labels, ids, got.labels, patch, refined=refine != "none")
                        for each, ids, got, patch in parts
                    )
                    rough.append(str(count))
            print(f"| {refine} | {margin} | {' | '.join(cells)} | {', '.join(rough)} |", flush=True)


def _score(truths: Sequence[Ids], labels: Sequence[NDArray[Any]]) -> str:
    score = Confusion(int(max(truth.max() for truth in truths)))
    for truth, found in zip(truths, labels, strict=True):
        score.add(truth, found)
    return score.text().split()[0]


def measure_parts(worlds: Worlds) -> None:
    _begin(
        "Parts at minimum confidences",
        "A third of the plain scenes, parts named all / half of them / one at a time: mean IoU of wholes / of parts.",
        *("`--refine`", "`--min-confidence`", "all", "half", "one"),
    )
    every = [(whole, part) for whole, parts in PARTS.items() for part in parts]
    lists = {
        "all": [every],
        "half": [[pair for pair in every if PARTS[pair[0]].index(pair[1]) % 2 == half] for half in (0, 1)],
        "one": [[pair] for pair in every],
    }
    scenes = worlds.plain[::3]
    encoded = [worlds.model.encode(scene.image) for scene in scenes]
    for refine in ("none", "pamr"):
        for minimum in (0.0, 0.5, 0.9):
            cells = []
            for groups in lists.values():
                wholes, parts = list[float](), list[float]()
                for group in groups:
                    names = [*PARTS, *(f"{whole}/{part}" for whole, part in group)]
                    options = LabelOptions(refine=refine, min_confidence=minimum)
                    labeller = tipsseg.Labeller(worlds.model, names, options)
                    found = [
                        labeller.label(each, guide=scene.image) for each, scene in zip(encoded, scenes, strict=True)
                    ]
                    scores = [iou_of(scenes, found, name) for name in names]
                    wholes += scores[: len(PARTS)]
                    parts += scores[len(PARTS) :]
                cells.append(f"{np.mean(wholes):.3f} / {np.mean(parts):.3f}")
            print(f"| {refine} | {minimum:g} | {' | '.join(cells)} |", flush=True)


def measure_names(worlds: Worlds) -> None:
    _begin(
        "Each image's own names",
        f"{len(WHOLE_LIST)} things, automatic background, plain scenes.",
        *("said of an image", "with a handicap for the others, as of a file", "without the others, as of a folder"),
    )
    labeller = tipsseg.Labeller(worlds.model, tipsseg.make_vocabulary(WHOLE_LIST))
    present = labeller.vocabulary.present
    truths = [to_list(scene.truth, WHOLE_LIST) for scene in worlds.plain]
    encoded = [worlds.model.encode(scene.image) for scene in worlds.plain]
    right = [[WHOLE_LIST[number - 1] for number in np.unique(truth) if number] for truth in truths]

    def changed(share: float, other: bool) -> list[list[str]]:
        rng = np.random.default_rng(1)
        kept = [[(name, rng.random() >= share, str(rng.choice(WHOLE_LIST))) for name in names] for names in right]
        return [[name if stays else new for name, stays, new in names if stays or other] for names in kept]

    cases: dict[str, Sequence[Sequence[str] | None]] = {
        "nothing": [None] * len(truths),
        "its things": right,
        "a tenth of them missing": changed(0.1, other=False),
        "a third missing": changed(1 / 3, other=False),
        "a tenth replaced": changed(0.1, other=True),
        "a third replaced": changed(1 / 3, other=True),
        "the things of another image": [*right[1:], right[0]],
    }
    for title, names in cases.items():
        texts = []
        for surely in (False, True):
            score = Confusion(len(WHOLE_LIST))
            for each, truth, said in zip(encoded, truths, names, strict=True):
                told = None if said is None else present(said, surely=surely)
                score.add(truth, labeller.label(each, names=told).labels)
            texts.append(score.text())
        print(f"| {title} | {' | '.join(texts)} |", flush=True)
    found = [
        [labeller.label(each, names=present([name], surely=True)).labels == number for each in encoded]
        for number, name in enumerate(WHOLE_LIST, 1)
    ]
    ious, areas = list[float](), list[float]()
    for number, masks in enumerate(found, 1):
        pairs = [(mask, truth == number) for mask, truth in zip(masks, truths, strict=True)]
        there = [(mask & own, mask | own) for mask, own in pairs if own.any()]
        ious.append(sum(int(both.sum()) for both, _ in there) / max(sum(int(either.sum()) for _, either in there), 1))
        areas += [float(mask.mean()) for mask, own in pairs if not own.any()]
    print(
        f"\nOne name an image, as a folder tells: IoU where it is {np.mean(ious):.3f}, false area elsewhere {np.mean(areas):.3%}.",
        flush=True,
    )


# ---- fits ----

#: Words that the model does not know, for things that it knows.
_WORDS = {"panda": "glorp", "house": "zibble", "umbrella": "quonk"}
_POOL, _DRAWS, _COUNTS, _OTHERS = 100, 3, (2, 5, 10), 30


def regress(
    model: tipsseg.Model, vocabulary: tipsseg.Vocabulary, label_id: int, images: Any, masks: Any
) -> FittedVocabulary:
    """Return a fit by multinomial logistic regression for one class; the others keep the logits of their text."""
    classifier = make_classifier(model.backbone, vocabulary)
    used, temperature = classifier.vocabulary, model.backbone.temperature
    groups = fitting.groups_by_id(used)
    windows = [
        window
        for image, mask in zip(images, masks, strict=True)
        for window in make_windows(image.patches, image.plan, mask, groups)
    ]
    group_of = torch.tensor([phrase.label_id for phrase in used.phrases])
    text = torch.from_numpy(classifier.vectors) / temperature
    strength = torch.where(group_of == label_id, 0.03, torch.inf)
    zero = torch.where(group_of[:, None] == label_id, 0.0, text)
    prior = Prior(zero, torch.zeros(len(text)), strength, strength)
    with limit_torch_threads(1):
        solved = solve([each for part in draw_pieces([windows], 1 << 14) for each in part], group_of, prior, 0.0)
    weights, biases = ((values * temperature).numpy() for values in solved)
    return FittedVocabulary(used, weights, biases, temperature, {}, "tiny", "slide", model.backbone.native_size, ())


def measure_fits(worlds: Worlds) -> None:
    _begin(
        "Fits of a word that the model does not know",
        f"{len(WHOLE_LIST)} things, masks of a few of {_POOL} other scenes, {_DRAWS} draws: IoU of the word, mean over draws\n"
        "(lowest); mean change of the other classes over the text (that of the worst class and draw). Logistic regression is for\n"
        "the word alone, on the same features: the other classes keep the logits of their text.",
        *("word for", "masks", "fit", "others", "logistic regression", "others"),
    )
    pool = [draw_scene(_FIRST + 50_000 + index, *SIZES[index % len(SIZES)]) for index in range(_POOL)]
    known, tested = ([worlds.model.encode(scene.image) for scene in scenes] for scenes in (pool, worlds.plain))
    masks, truths = ([to_list(scene.truth, WHOLE_LIST) for scene in scenes] for scenes in (pool, worlds.plain))

    def score(classes: Any) -> NDArray[np.float64]:
        labeller = tipsseg.Labeller(worlds.model, classes)
        labels = [labeller.label(each).labels.astype(np.uint8) for each in tested]
        table = np.zeros((len(WHOLE_LIST) + 1,) * 2)
        for truth, found in zip(truths, labels, strict=True):
            np.add.at(table, (truth.ravel(), found.ravel()), 1)
        both = np.diag(table)
        return (both / np.maximum(table.sum(0) + table.sum(1) - both, 1))[1:]

    for thing, word in _WORDS.items():
        index = WHOLE_LIST.index(thing)
        vocabulary = tipsseg.make_vocabulary([word if name == thing else name for name in WHOLE_LIST])
        text = score(vocabulary)
        having = [number for number, mask in enumerate(masks) if (mask == index + 1).mean() > 0.002]
        for count in _COUNTS:
            rows = []
            for draw in range(_DRAWS):
                rng = np.random.default_rng([draw, count, index])
                chosen = rng.choice(having, min(count, len(having)), replace=False).tolist()
                others = rng.choice([each for each in range(_POOL) if each not in chosen], _OTHERS, replace=False)
                own = [known[each] for each in chosen], [masks[each] for each in chosen]
                fit = fitting.fit(worlds.model, *own, vocabulary, unlabelled=[known[each] for each in others])
                rows.append([score(fit), score(regress(worlds.model, vocabulary, index + 1, *own))])
            table = np.array(rows) - text
            cells = []
            for way in (0, 1):
                own_iou, rest = table[:, way, index] + text[index], np.delete(table[:, way], index, 1)
                cells.append(f"{own_iou.mean():.3f} ({own_iou.min():.3f}) | {rest.mean():+.4f} ({rest.min():+.3f})")
            print(f"| {thing} | {count} | {' | '.join(cells)} |", flush=True)


TABLES: dict[str, Callable[[Worlds], None]] = {
    "refinements": measure_refinements,
    "regions": measure_regions,
    "parts": measure_parts,
    "names": measure_names,
    "fits": measure_fits,
}


def _scenes(count: int) -> Iterator[tuple[int, Scene]]:
    for index in range(count):
        yield _FIRST + index, draw_scene(_FIRST + index, *SIZES[index % len(SIZES)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure what each option adds to the quality of labels, on drawn scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--scenes", type=int, default=63, help="how many")
    parser.add_argument("--tables", default=",".join(TABLES), help="which to make, with commas")
    options = parser.parse_args()
    model = tipsseg.load("tiny", device="cpu", dtype="float32")
    print(f"tiny on the CPU (float32), {options.scenes} scenes with seeds from {_FIRST:,}; {platform.machine()}")
    plain = [*_scenes(options.scenes)]
    worlds = Worlds(model, [scene for _, scene in plain], [draw_textured(scene, seed) for seed, scene in plain])
    for name in options.tables.split(","):
        TABLES[name](worlds)


if __name__ == "__main__":
    main()
