"""Measure `--overlap` on the example scenes: time against one run of all classes, and differences from runs of one class.

    TIPSSEG_NUMBA=0 python tests/benchmarks/overlap.py

Prints a table in Markdown: the time to label an image from its features with all classes that overlap, and with each class alone,
over that of one run of all classes, as median and largest ratio of the images; and the pixels and confidences that differ from
those of a class alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from models import machine

import tipsseg

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
CLASSES = [
    *("sky", "cloud", "sun", "mountain", "grass", "sand", "water", "road", "tree crown", "tree trunk", "panda head"),
    *("panda body", "panda front leg", "panda hind leg", "house wall", "house roof", "house door", "car body"),
    *("car wheel", "boat hull"),
]
MODES: dict[str, dict[str, object]] = {
    "windows": {},
    "windows, minimum confidence 0.6": {"min_confidence": 0.6},
    "whole": {"mode": "whole"},
    "two scales": {"scales": (1.0, 1.75)},
    "refined": {"refine": "pamr"},
}


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=3, help="measurements of each image, of which the shortest counts"
    )
    parser.add_argument("--images", type=int, default=12, help="how many of the scenes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{len(CLASSES)} classes, `tiny`, one core; {machine('torch', 'numpy')}\n")
    print("| | overlap, over one run | each class alone | differing pixels | differing confidences |")
    print("|---|---|---|---|---|")
    model = tipsseg.load("tiny", device="cpu")
    for name, keywords in MODES.items():
        print(f"| {name} | {measure(model, keywords, options.repeats, options.images)} |")


def measure(model: tipsseg.Model, keywords: dict[str, object], repeats: int, count: int) -> str:
    images = sorted(path for path in SCENES.rglob("*") if path.is_file())[:count]
    view = {key: value for key, value in keywords.items() if key in ("mode", "scales")}
    one = model.labeller(CLASSES, **keywords)  # type: ignore[arg-type]
    overlap = model.labeller(CLASSES, overlap=True, **keywords)  # type: ignore[arg-type]
    alone = [model.labeller([name], **keywords) for name in CLASSES]  # type: ignore[arg-type]
    ratios: list[tuple[float, float]] = []
    pixels = confidences = total = 0
    for image in images:
        features = model.encode(image, **view)  # type: ignore[arg-type]
        guide = image if keywords.get("refine") else None
        one_time, together, apart = (
            min(timed(labellers, features, guide) for _ in range(repeats)) for labellers in ([one], [overlap], alone)
        )
        ratios.append((together / one_time, apart / one_time))
        result = overlap.label(features, guide=guide)
        layers = {layer.region.class_id: layer for layer in result.layers or ()}
        for number, labeller in enumerate(alone, start=1):
            own = labeller.label(features, guide=guide)
            mask = own.labels == 1
            total += mask.size
            pixels += int((result.mask(number) != mask).sum())
            if number in layers:
                confidences += int((layers[number].confidence_map(result.shape)[mask] != own.confidence[mask]).sum())
    with_overlap, each_alone = zip(*ratios, strict=True)
    return (
        f"{statistics.median(with_overlap):.2f} (largest {max(with_overlap):.2f}) | {statistics.median(each_alone):.1f} "
        f"| {pixels} of {total:,} | {confidences}"
    )


def timed(labellers: Sequence[tipsseg.Labeller], features: tipsseg.Features, guide: Path | None) -> float:
    """Return the seconds that these labellers take, one after another."""
    began = time.perf_counter()
    for labeller in labellers:
        labeller.label(features, guide=guide)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
