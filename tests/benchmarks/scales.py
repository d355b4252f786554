"""How scores at several scales are best made one: rules compared on held-out drawn scenes, with what each costs.

    PYTHONPATH=examples/pretrain python tests/benchmarks/scales.py --scenes 200

The closed list of 24 classes with the embedded model, without refinement. At each scale the scores are those of the published
protocol there; the rules make one score of them for every pixel, and the largest wins. Scored is every third pixel along each
axis. The cost is the number of windows that the model sees, relative to scale 1. What came of it is `--scales`, whose labels
`testbed.py` measures.

A part of the scenes at a time: `--first` and `--json`; then `--merge` prints the table of all parts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from models import machine
from numpy.typing import NDArray

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, to_list
from tinytips.world.concepts import CLOSED_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.labelling.scoring.resample import resize
from tipsseg.labelling.scoring.scores import WindowScores
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import WindowPlan

Maps = NDArray[np.float32]

#: The first seed of these scenes; no test and no other measurement has them.
FIRST = FIRST_SEED + 40_000

SCALES = (0.8125, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)

#: Every so many pixels are scored.
STEP = 3

#: Truth regions by their size, in patches at scale 1.
SIZE_BINS = {"under 1 patch": (0, 1), "1 to 4": (1, 4), "over 4": (4, 1_000_000)}
PATCH_SHARE = (14 / 224) ** 2  # of the square of the short side


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A scene at all scales.

    Attributes:
        truth: [h, w] uint8, of every third pixel: 0 none of the classes, 1..24.
        patch: Pixels of `truth` in a patch at scale 1.
        logs: [24, h, w] by scale: log-probabilities.
        plans: By scale.
    """

    truth: NDArray[np.uint8]
    patch: float
    logs: Mapping[float, Maps]
    plans: Mapping[float, WindowPlan]

    def windows(self, *scales: float) -> int:
        """How many windows the model sees at these scales."""
        return sum(len(self.plans[each].corners) for each in scales)


#: A scene -> the scores of all classes, [24, h, w], and what they cost in windows.
Rule = Callable[[Seen], tuple[Maps, float]]


def mean(**weights: float) -> Rule:
    """The weighted mean of the log-probabilities; an argument is named by its scale, as s1_75."""
    shares = {float(name[1:].replace("_", ".")): weight for name, weight in weights.items()}

    def rule(seen: Seen) -> tuple[Maps, float]:
        return _total(np.float32(weight) * seen.logs[scale] for scale, weight in shares.items()), seen.windows(*shares)

    return rule


def probabilities(temperature: float, *scales: float) -> Rule:
    """The mean of softmax(log-probability / temperature): of two scales the surer one wins."""

    def rule(seen: Seen) -> tuple[Maps, float]:
        return _total(_softmax(seen.logs[scale], temperature) for scale in scales), seen.windows(*scales)

    return rule


def alike(*scales: float) -> Rule:
    """The mean after the scores of a pixel were given the same standard deviation over classes at each scale."""

    def rule(seen: Seen) -> tuple[Maps, float]:
        return _total(seen.logs[scale] / seen.logs[scale].std(0) for scale in scales), seen.windows(*scales)

    return rule


def unsure(margin: float, coarse: float, fine: float) -> Rule:
    """The mean, with the finer scale only where the best two classes are closer than that; all of its windows are made."""

    def rule(seen: Seen) -> tuple[Maps, float]:
        here = _margin(seen.logs[coarse]) < margin  # [h, w]
        return _total([seen.logs[coarse], np.where(here, seen.logs[fine], 0)]), seen.windows(coarse, fine)

    return rule


def chosen(share: float, coarse: float, fine: float) -> Rule:
    """The mean, with the finer scale in a share of its windows: those in which the best two classes are closest."""

    def rule(seen: Seen) -> tuple[Maps, float]:
        plan, (height, width) = seen.plans[fine], seen.truth.shape
        close = np.exp(-_margin(seen.logs[coarse]) / 0.1)
        places = []
        for top, left in plan.corners:
            rows, columns = (
                slice(start * length // size, (start + plan.side) * length // size)
                for start, length, size in zip((top, left), (height, width), plan.size, strict=True)
            )
            places.append((rows, columns))
        number = max(round(share * len(places)), 1)
        there = np.zeros((height, width), bool)
        for place in sorted(places, key=lambda place: -close[place].mean())[:number]:
            there[place] = True
        return _total([seen.logs[coarse], np.where(there, seen.logs[fine], 0)]), seen.windows(coarse) + number

    return rule


RULES: Mapping[str, Rule] = {
    **{f"scale {scale:g} alone": mean(**{f"s{scale:g}".replace(".", "_"): 1}) for scale in SCALES},
    "mean of 1 and 1.5": mean(s1=1, s1_5=1),
    "mean of 1 and 1.75": mean(s1=1, s1_75=1),
    "mean of 1 and 2": mean(s1=1, s2=1),
    "mean of 1.25 and 1.75": mean(s1_25=1, s1_75=1),
    "mean of 1, 1.5 and 2": mean(s1=1, s1_5=1, s2=1),
    "mean of 1, 1.75 and 2.5": mean(s1=1, s1_75=1, s2_5=1),
    "mean of 1, 1.75 and 3": mean(s1=1, s1_75=1, s3=1),
    "mean of 1, 1.5, 2 and 3": mean(s1=1, s1_5=1, s2=1, s3=1),
    "1, and 1.75 with weight 0.5": mean(s1=1, s1_75=0.5),
    "1, and 1.75 with weight 1.5": mean(s1=1, s1_75=1.5),
    "1, and 1.75 with weight 2": mean(s1=1, s1_75=2),
    "1, 1.75, and 3 with weight 0.5": mean(s1=1, s1_75=1, s3=0.5),
    "probabilities of 1 and 1.75, temperature 0.2": probabilities(0.2, 1, 1.75),
    "probabilities of 1 and 1.75, temperature 0.07": probabilities(0.07, 1, 1.75),
    "probabilities of 1 and 1.75, temperature 0.03": probabilities(0.03, 1, 1.75),
    "1 and 1.75, given the same spread": alike(1, 1.75),
    "1.75 where 1 is unsure, margin 0.1": unsure(0.1, 1, 1.75),
    "1.75 where 1 is unsure, margin 0.3": unsure(0.3, 1, 1.75),
    "1.75 in the unsurest third of its windows": chosen(1 / 3, 1, 1.75),
    "1.75 in the unsurest two thirds": chosen(2 / 3, 1, 1.75),
    "2 in the unsurest third of its windows": chosen(1 / 3, 1, 2),
    "3 in the unsurest third of its windows": chosen(1 / 3, 1, 3),
}


def _total(maps: Iterable[Maps]) -> Maps:
    return np.sum([*maps], axis=0, dtype=np.float32)


def _softmax(logs: Maps, temperature: float) -> Maps:
    shares = (logs - logs.max(0)) / np.float32(temperature)
    np.exp(shares, out=shares)
    shares /= shares.sum(0)
    return shares


def _margin(logs: Maps) -> Maps:
    """By how much the best class is ahead of the second, [h, w]."""
    best = np.partition(logs, -2, axis=0)[-2:]
    margin: Maps = best[1] - best[0]
    return margin


@dataclass(slots=True)
class Counts:
    """What a rule came to over scenes.

    Attributes:
        confusion: [24, 25], truth 1..24 by label 0..24.
        found: By SIZE_BINS: the sum of the recalls of regions, and their number.
        windows: Windows that the model saw, and those of scale 1.
    """

    confusion: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(CLOSED_LIST), len(CLOSED_LIST) + 1)))
    found: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(SIZE_BINS), 2)))
    windows: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, labels: NDArray[np.uint8], seen: Seen, windows: float) -> None:
        """Count a scene, of which the labels are [h, w]."""
        some = seen.truth > 0
        pairs = (seen.truth[some].astype(np.intp) - 1) * self.confusion.shape[1] + labels[some]
        self.confusion += np.bincount(pairs, minlength=self.confusion.size).reshape(self.confusion.shape)
        for label in np.unique(seen.truth[some]):
            own = (seen.truth == label).astype(np.uint8)
            _, numbered, stats, _ = cv2.connectedComponentsWithStats(own, connectivity=8)
            areas = stats[1:, cv2.CC_STAT_AREA]
            right = np.bincount(numbered[labels == label], minlength=len(areas) + 1)[1:]
            for row, (low, high) in enumerate(SIZE_BINS.values()):
                few = (areas >= low * seen.patch) & (areas < high * seen.patch) & (areas >= 2)
                self.found[row] += (right[few] / areas[few]).sum(), few.sum()
        self.windows += windows, seen.windows(1.0)

    def row(self) -> str:
        """The numbers as cells of a table: mean IoU, recalls, cost."""
        both = self.confusion[:, 1:].diagonal()
        union = self.confusion.sum(1) + self.confusion[:, 1:].sum(0) - both
        recall = " | ".join(f"{right / max(number, 1):.3f}" for right, number in self.found)
        iou = (both[union > 0] / union[union > 0]).mean()
        return f"{iou:.3f} | {recall} | {self.windows[0] / self.windows[1]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare rules for several scales on held-out drawn scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="tiny", help="an id, or a folder in the hub layout")
    parser.add_argument("--scenes", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--json", type=Path, help="also write the counts here")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="print the table of counts that --json wrote, and no more"
    )
    options = parser.parse_args()
    if options.merge:
        print_table([json.loads(path.read_text()) for path in options.merge])
        return
    model = tipsseg.load(options.model)
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(CLOSED_LIST, "none"))
    counts = {name: Counts() for name in RULES}
    for index in range(options.first, options.first + options.scenes):
        seen = look(model, labeller, index)
        for name, rule in RULES.items():
            scores, windows = rule(seen)
            counts[name].add((scores.argmax(0) + 1).astype(np.uint8), seen, windows)
    found = {
        name: {"confusion": each.confusion.tolist(), "found": each.found.tolist(), "windows": each.windows.tolist()}
        for name, each in counts.items()
    }
    print(
        f"{options.model}, scenes {options.first} to {options.first + options.scenes - 1}; {machine('torch', 'numpy')}\n"
    )
    print_table([found])
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")


def look(model: tipsseg.Model, labeller: tipsseg.Labeller, index: int) -> Seen:
    """A scene as the model sees it at all scales."""
    scene = draw_scene(FIRST + index, *SIZES[index % len(SIZES)])
    truth = to_list(scene.truth, CLOSED_LIST)
    logs, plans = {}, {}
    for scale in SCALES:
        features = model.encode(scene.image, short_side=round(scale * model.backbone.native_size))
        cosines = features.cosines(labeller.vectors).cpu().numpy()
        scores = WindowScores(cosines, features.plan, model.backbone.temperature)
        everything = slice(0, scores.size[0]), slice(0, scores.size[1])
        values = scores.values(*everything, np.arange(len(CLOSED_LIST)))
        rows, columns = (
            every(interpolation_weights(*lengths)) for lengths in zip(scores.size, truth.shape, strict=True)
        )
        logs[scale], plans[scale] = np.log(resize(values, rows, columns)), features.plan
    return Seen(truth[1::STEP, 1::STEP], min(truth.shape) ** 2 * PATCH_SHARE / STEP**2, logs, plans)


def every(weights: InterpolationWeights) -> InterpolationWeights:
    """Of the outputs every third."""
    return InterpolationWeights(weights.low[1::STEP], weights.high[1::STEP], weights.weight[1::STEP])


def print_table(parts: Sequence[Mapping[str, Mapping[str, object]]]) -> None:
    """Print the sums of several parts as a table in Markdown."""
    print(f"| rule | mean IoU | recall of regions {' | '.join(SIZE_BINS)} | windows |")
    print("|---" * (3 + len(SIZE_BINS)) + "|")
    for name in parts[0]:
        total = Counts()
        for part in parts:
            total.confusion += np.array(part[name]["confusion"])
            total.found += np.array(part[name]["found"])
            total.windows += np.array(part[name]["windows"])
        print(f"| {name} | {total.row()} |")


if __name__ == "__main__":
    main()
