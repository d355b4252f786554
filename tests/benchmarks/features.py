"""Measure the savings, the cost and the effect on labels of a feature store.

    python tests/benchmarks/features.py
    python tests/benchmarks/features.py --images 2 --rounds 1 --tables speed

Draws photographs of 640 x 480 pixels (JPEG), labels them into png and coco with the architecture of B/14 (seeded random weights) on
the CPU, encodes them, and labels them again from the store. The time per image is the difference between a run over all images and
a run over one, without start and end. Every ratio is given for elapsed time and for CPU time, which other programs affect less.
Also prints sizes in bytes, and the share of pixels whose label changes with the dtype of the features.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from endtoend import CLASSES, draw
from models import TINY, machine, save_model

import tipsseg
from tipsseg.api import FolderSummary
from tipsseg.features.file import read_feature_header
from tipsseg.labelling.features import round_features
from tipsseg.options import FEATURE_DTYPES

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
NAMES = CLASSES.split(",")
FORMATS = ("png", "coco")
MANY = [
    *NAMES,
    *(f"{colour} {name}" for colour in ("red", "old", "new", "tall", "small", "wet", "far") for name in NAMES),
]


@dataclass(frozen=True)
class Took:
    """Seconds per image: elapsed, and CPU time of all cores."""

    passed: float
    processor: float

    def __add__(self, other: Took) -> Took:
        return Took(self.passed + other.passed, self.processor + other.processor)

    def __sub__(self, other: Took) -> Took:
        return Took(self.passed - other.passed, self.processor - other.processor)

    def __truediv__(self, number: int) -> Took:
        return Took(self.passed / number, self.processor / number)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure feature stores.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4, help="how many go through the tower")
    parser.add_argument("--copies", type=int, default=10, help="how many of each a further question is about")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is printed")
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--tables", default="speed,bytes,pixels", help="with commas")
    options = parser.parse_args()
    print(f"{options.images} images, {options.rounds} rounds; {machine('torch', 'numpy')}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["TIPSSEG_CACHE"] = str(place / "cache")
        os.chdir(place)
        model = save_model("b14", place / "b14")
        draw(place / "imgs", options.images)
        for table in options.tables.split(","):
            {"speed": measure_speed, "bytes": measure_bytes, "pixels": measure_pixels}[table](model, options)


# ---- speed ----


def measure_speed(model: Path, options: argparse.Namespace) -> None:
    first_image = min(Path("imgs").iterdir())
    Path("one").mkdir()
    shutil.copy(first_image, "one")
    Path("many").mkdir()
    for path in sorted(Path("imgs").iterdir()):
        for number in range(options.copies):
            shutil.copy(path, Path("many", f"{number:03}-{path.name}"))
    how = {"model": model, "device": "cpu", "dtype": options.dtype}

    def labelled(images: str, names: list[str], features: str | None = None) -> Took:
        shutil.rmtree("out", ignore_errors=True)
        vocabulary = tipsseg.make_vocabulary(names, "none")
        return whole(
            lambda: tipsseg.label_folder(
                images, vocabulary, **how, formats=FORMATS, output="out", features=features, use_cache=True
            )
        )

    def encoded(images: str) -> Took:
        shutil.rmtree("feats", ignore_errors=True)
        return whole(lambda: tipsseg.encode_folder(images, "feats", **how, use_cache=True))

    labelled("one", NAMES)  # texts are kept from here on
    ratios: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        first = (labelled("imgs", NAMES) - labelled("one", NAMES)) / (options.images - 1)
        alone = encoded("one")
        encode = (encoded("imgs") - alone) / (options.images - 1)
        copies = options.images * options.copies - 1
        found = {"encode": (encode, "the first run", first)}
        for what, names in (
            ("a second question, 20 phrases", NAMES),
            ("a second question, 150 phrases", MANY[:150]),
            ("`label --jsonl -c panda` over the store", ["panda"]),
        ):
            labelled("one", names, "feats")
            took = (labelled("many", names, "feats") - labelled("one", names, "feats")) / copies
            found[what] = (took, "the first run", first)
            if names is NAMES:
                found["encode, and label from the store"] = (encode + took, "the first run", first)
        reads = [path for _ in range(50) for path in Path("feats/feats").rglob("*.safetensors")]
        read = whole(partial(read_all, reads)) / len(reads)
        found["the same"] = (took, "reading its files, which are in memory", read)
        for what, (one, over, other) in found.items():
            ratio = one.passed / other.passed, one.processor / other.processor
            ratios.setdefault((what, over), []).append(ratio)
    print("| an image of 640 x 480, B/14, png and coco | over | time | processor time |\n|---|---|---|---|")
    for (what, over), each in ratios.items():
        passed, processor = (said(statistics.median(column)) for column in zip(*each, strict=True))
        print(f"| {what} | {over} | {passed} | {processor} |", flush=True)
    print()


def said(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.2 else f"{ratio:.2f}"


def read_all(paths: Sequence[Path]) -> None:
    for path in paths:
        path.read_bytes()


def whole(call: Callable[[], object]) -> Took:
    """Measure a whole run, including its start and end."""
    began = time.perf_counter(), time.process_time()
    result = call()
    assert not (isinstance(result, FolderSummary) and result.count("failed"))
    return Took(time.perf_counter() - began[0], time.process_time() - began[1])


# ---- bytes ----


def measure_bytes(model: Path, options: argparse.Namespace) -> None:
    print("| kept in | an image, as `encode --dry-run` says | as computed | as written |\n|---|---|---|---|")
    command = [sys.executable, "-m", "tipsseg", "encode", "imgs", "-m", str(model), "--device", "cpu", "--limit", "2"]
    for dtype in FEATURE_DTYPES:
        how = ["-o", f"feats-{dtype}", "--feature-dtype", dtype]
        said = subprocess.run([*command, *how, "--dry-run"], capture_output=True, text=True, check=True).stderr
        told = re.findall(r"take (\S+ \S+) per image", said)[0]
        results = tipsseg.encode_folder(
            "imgs", f"feats-{dtype}", model=model, device="cpu", feature_dtype=dtype, limit=2
        )
        file = next(iter(results)).files["1"]
        print(f"| {dtype} | {told} | {read_feature_header(file).bytes:,} | {file.stat().st_size:,} |", flush=True)
    print()


# ---- pixels ----


def measure_pixels(model: Path, options: argparse.Namespace) -> None:
    print(
        "| model, images | pixels that differ: "
        + " | ".join(FEATURE_DTYPES)
        + " |\n|---"
        + "|---" * len(FEATURE_DTYPES)
        + "|"
    )
    kinds = ((model, "B/14, random weights", Path("imgs")), (TINY, "tiny, drawn scenes", SCENES))
    for folder, what, images in kinds:
        labeller = tipsseg.Labeller(tipsseg.load(folder, device="cpu", dtype=options.dtype), NAMES)
        differ: dict[str, list[float]] = {dtype: [] for dtype in FEATURE_DTYPES}
        for path in pictures(images):
            features = labeller.model.encode(path)
            plain = labeller.label(features).labels
            for dtype in FEATURE_DTYPES:
                kept = round_features(features, dtype).features
                differ[dtype].append(float(np.mean(labeller.label(kept).labels != plain)))
        shares = " | ".join(f"{np.mean(each):.3%}, at most {max(each):.3%}" for each in differ.values())
        print(f"| {what} ({len(differ['int8'])}) | {shares} |", flush=True)


def pictures(folder: Path) -> Generator[Path, None, None]:
    yield from sorted(each for each in folder.rglob("*") if each.suffix in (".png", ".jpg", ".gif", ".bmp", ".webp"))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
