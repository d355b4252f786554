"""What a term for each class and image is worth, where most of a list is not in the image. None of these is built in.

    pip install scikit-image
    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model
    PYTHONPATH=examples/pretrain python tests/benchmarks/presence.py --weak /tmp/weak/model --scenes 60

The lists: three things of the drawn world at a time against the automatic background (18 things, six lists); the closed list of 24;
the closed list and ADE20K's names without those of the drawn world; the closed list and other words up to 1,000; ADE20K's names
alone against the automatic background, where every label is false. Mean IoU is of the drawn world's classes, where a list has them;
false area is the share of an image that goes to classes that it does not have, the mean over images; recall is of regions under
four patches.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from labels import THREES, Scene, found_regions
from models import machine
from numpy.typing import NDArray
from testbed import WORLDS, scenes_of
from torch import Tensor

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.concepts import ABSENT_WORDS, CLOSED_LIST, CONCEPTS
from tipsseg.labelling.features import Features
from tipsseg.labelling.labeller import Cosines
from tipsseg.vocabulary.files import read_vocabulary

#: What is added to the cosines of each group, in temperatures, [G], by the shares of the groups at each patch of a window, [n, G],
#: and the cosines of the class tokens with the groups, [G], in temperatures.
Presence = Callable[[Tensor, Tensor], Tensor]


def _absent_names() -> tuple[Sequence[str], Sequence[str]]:
    """ADE20K's names, and 976 words, without the words of the drawn world."""
    own = {wording for concept in CONCEPTS for wording in concept.wordings}

    def names(*vocabularies: str) -> list[str]:
        found = [spec.name for name in vocabularies for spec in read_vocabulary(name).specs]
        return [name for name in dict.fromkeys(found) if name not in own]

    ade = names("ade20k")
    words = [*names("ade20k", "coco-stuff", "cityscapes", "pascal-context-59", "voc20"), *ABSENT_WORDS]
    words = list(dict.fromkeys(words))
    words += [f"{kind} {word}" for kind in ("old", "small", "wooden") for word in words]
    return ade, words[: 1000 - len(CLOSED_LIST)]


ADE, WORDS = _absent_names()

#: Names, background, and how many of the names are the drawn world's.
LISTS: Mapping[str, Sequence[tuple[Sequence[str], str, int]]] = {
    "3": [(three, "auto", 3) for three in THREES],
    "24": [(CLOSED_LIST, "none", 24)],
    f"24 + ADE20K's {len(ADE)}": [((*CLOSED_LIST, *ADE), "none", 24)],
    "1,000": [((*CLOSED_LIST, *WORDS), "none", 24)],
    f"ADE20K's {len(ADE)}, background auto": [(ADE, "auto", 0)],
}


def _log(shares: Tensor) -> Tensor:
    return shares.clamp(min=1e-4).log()


#: What is measured. Each is a sum of logarithms, and strengths are their factors. The share of a group at a patch is softmax(cosine
#: / temperature) over the groups, the cosine of a group that of its best phrase.
METHODS: Mapping[str, Presence] = {
    "none": lambda shares, tokens: torch.zeros(shares.shape[1]),
    "largest share, strength 0.25": lambda shares, tokens: 0.25 * _log(shares.amax(0)),
    "largest share, strength 1": lambda shares, tokens: _log(shares.amax(0)),
    "largest share, strength 4": lambda shares, tokens: 4 * _log(shares.amax(0)),
    "largest share of four patches, sharper (8), strength 0.3": lambda shares, tokens: 0.3 * _log(_sharper(shares, 8)),
    "mean share, strength 0.5": lambda shares, tokens: 0.5 * _log(shares.mean(0)),
    "power mean of shares (4), strength 1": lambda shares, tokens: _log((shares**4).mean(0) ** 0.25),
    "largest share under 0.5: dropped": lambda shares, tokens: torch.where(shares.amax(0) < 0.5, -1000.0, 0.0),
    "class tokens, strength 0.3": lambda shares, tokens: 0.3 * (tokens - tokens.max()),
    "largest share, and class tokens by 0.1": lambda shares, tokens: (
        _log(shares.amax(0)) + 0.1 * (tokens - tokens.max())
    ),
}


def _sharper(shares: Tensor, power: float) -> Tensor:
    """The largest share of a group among shares that were raised to a power; the mean over four neighbours, two by two."""
    side = math.isqrt(len(shares)) if math.isqrt(len(shares)) ** 2 == len(shares) else 0
    raised = shares**power
    raised = raised / raised.sum(1, keepdim=True)
    if not side:
        return raised.amax(0)
    grid = raised.T.unflatten(1, (side, side))
    return torch.nn.functional.avg_pool2d(grid, 2, 1).amax((1, 2))


@dataclass(frozen=True, slots=True)
class Labels:
    """How the labels of a vocabulary are made with a term for each class and image."""

    labeller: tipsseg.Labeller
    groups: Sequence[int]
    temperature: float

    def of(self, features: Features, method: Presence) -> NDArray[np.unsignedinteger]:
        cosines = features.cosines(self.labeller.vectors)  # [B, h, w, P]
        owners = torch.repeat_interleave(torch.arange(len(self.groups)), torch.tensor(self.groups))
        tokens = (features.class_tokens @ self.labeller.vectors.T).mean(1).amax(0)
        tokens = self._of_groups(tokens[None], owners)[0]
        windows = [self._of_groups(each.flatten(0, 1), owners).softmax(1) for each in cosines]
        # Each window is asked for itself, and a class is as present as it is where it is most.
        terms = [method(shares, tokens) for shares in windows]
        term = self.temperature * torch.stack(terms).amax(0)[owners]
        return self.labeller.assign(features, Cosines(cosines + term, 0)).labels

    def _of_groups(self, cosines: Tensor, owners: Tensor) -> Tensor:
        """[n, P] -> [n, G], in temperatures."""
        best = torch.full((len(cosines), len(self.groups)), -math.inf)
        return best.scatter_reduce_(1, owners.expand_as(cosines), cosines / self.temperature, "amax")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure terms of presence.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--weak", type=Path, help="the folder of the weak model; without it `tiny` alone is measured")
    parser.add_argument("--scenes", type=int, default=60, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the scenes")
    parser.add_argument("--models", default="tiny,weak", help="which, with commas")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="which, with commas")
    parser.add_argument("--methods", default=";".join(METHODS), help="which, with semicolons")
    parser.add_argument("--lists", default=";".join(LISTS), help="which, with semicolons")
    options = parser.parse_args()
    print(f"{options.scenes} scenes with seeds from {options.first_seed:,}; {machine('torch', 'numpy')}\n")
    methods = {name: METHODS[name] for name in options.methods.split(";")}
    worlds = {world: scenes_of(world, options.scenes, options.first_seed) for world in options.worlds.split(",")}
    print("| list | model | scenes | presence | mean IoU | false area | recall |\n|---|---|---|---|---|---|---|")
    for name, source in (("tiny", "tiny"), ("weak", options.weak)):
        if source is None or name not in options.models.split(","):
            continue
        model = tipsseg.load(source)
        for world, scenes in worlds.items():
            features = [model.encode(scene.image) for scene in scenes]
            for title in options.lists.split(";"):
                for method, row in _measured(model, scenes, features, LISTS[title], methods).items():
                    print(f"| {title} | {name} | {world} | {method} | {row} |", flush=True)


def _measured(
    model: tipsseg.Model,
    scenes: Sequence[Scene],
    features: Sequence[Features],
    lists: Sequence[tuple[Sequence[str], str, int]],
    methods: Mapping[str, Presence],
) -> dict[str, str]:
    """The cells of each method."""
    numbers: dict[str, list[tuple[float, float, float]]] = {method: [] for method in methods}
    for names, background, own in lists:
        labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(names, background))
        phrases = labeller.vocabulary.phrases
        ids = [phrase.label_id for phrase in phrases]
        made = Labels(labeller, [ids.count(each) for each in dict.fromkeys(ids)], model.backbone.temperature)
        for method, how in methods.items():
            numbers[method].append(_scored(made, scenes, features, names[:own], how))
    rows = {}
    for method, found in numbers.items():
        iou, area, recall = np.mean(found, 0)
        rows[method] = " | ".join(
            "-" if math.isnan(value) else text
            for value, text in ((iou, f"{iou:.3f}"), (area, f"{area:.2%}"), (recall, f"{recall:.3f}"))
        )
    return rows


def _scored(
    made: Labels, scenes: Sequence[Scene], features: Sequence[Features], own: Sequence[str], how: Presence
) -> tuple[float, float, float]:
    """Mean IoU, false area and recall; the names of the drawn world are the first of the list."""
    counts = np.zeros((len(own), 3), np.int64)  # both, truth, labels
    areas, found = [], np.zeros(2)
    open_list = any(phrase.label_id == 0 for phrase in made.labeller.vocabulary.phrases)
    for scene, each in zip(scenes, features, strict=True):
        truth, labels = to_list(scene.leaves, own).astype(np.uint16), made.of(each, how)
        absent = np.setdiff1d(np.unique(labels[labels > 0]), np.unique(truth))
        areas.append(float(np.isin(labels, absent).mean()))
        scored = (truth > 0) | open_list  # without a background nothing is right for what is none of the list
        for index in range(len(own)):
            is_truth, is_label = truth == index + 1, scored & (labels == index + 1)
            counts[index] += (is_truth & is_label).sum(), is_truth.sum(), is_label.sum()
        found += found_regions(truth, labels)[:3].sum(0)
    both, true, labelled = counts[counts[:, 1] > 0].T
    iou = float(np.mean(both / (true + labelled - both))) if own else math.nan
    return iou, float(np.mean(areas)), found[0] / found[1] if found[1] else math.nan


if __name__ == "__main__":
    main()
