"""What a feature store saves, costs and changes.

    python tests/benchmarks/features.py
    python tests/benchmarks/features.py --images 2 --rounds 1 --tables speed

Draws photographs of 640 x 480 pixels (JPEG), labels them into png and coco with the architecture of B/14 (seeded random weights) on
the CPU, encodes them, and asks further questions over the store. Times are of an image in the midst of a run, from the first result
to the last, without the start of the program. Each ratio is given twice: of the time that passed, and of the processor's time,
which other programs on the machine change less. Then: bytes, and the share of pixels whose label another dtype of features changes.
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
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from endtoend import CLASSES, draw
from models import TINY, machine, save_model

import tipsseg
from tipsseg.labelling.features import Features
from tipsseg.options import FEATURE_DTYPES

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
NAMES = CLASSES.split(",")
MANY = [
    *NAMES,
    *(f"{colour} {name}" for colour in ("red", "old", "new", "tall", "small", "wet", "far") for name in NAMES),
]


@dataclass(frozen=True)
class Took:
    """Seconds of an image: passed, and of all cores together."""

    passed: float
    processor: float

    def __add__(self, other: Took) -> Took:
        return Took(self.passed + other.passed, self.processor + other.processor)


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
    Path("many").mkdir()
    for path in sorted(Path("imgs").iterdir()):
        for number in range(options.copies):
            shutil.copy(path, Path("many", f"{number:03}-{path.name}"))
    ratios: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def note(what: str, over: str, one: Took, other: Took) -> None:
        ratios.setdefault((what, over), []).append((one.passed / other.passed, one.processor / other.processor))

    for _ in range(options.rounds):
        shutil.rmtree("feats", ignore_errors=True)
        first = label("imgs", model, NAMES, options)
        encoded = of_an_image(tipsseg.encode_folder("imgs", "feats", model=model, device="cpu", dtype=options.dtype))
        second = label("many", model, NAMES, options, features="feats")
        many = label("many", model, MANY[:150], options, features="feats")
        panda = label("many", model, ["panda"], options, features="feats")
        read = of_an_image(
            path.read_bytes() for _ in range(50) for path in sorted(Path("feats/feats").rglob("*.safetensors"))
        )
        over = "the first run"
        note("a second question, 20 phrases", over, second, first)
        note("a second question, 150 phrases", over, many, first)
        note("encode, and label from the store", over, encoded + second, first)
        note("`label --jsonl -c panda` over the store (png and coco)", "the first run", panda, first)
        note(
            "`label --jsonl -c panda` over the store (png and coco)",
            "reading its files, which are in memory",
            panda,
            read,
        )
    print("| an image of 640 x 480, B/14 | over | time | processor time |\n|---|---|---|---|")
    for (what, over), found in ratios.items():
        one, other = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"| {what} | {over} | {said(one)} | {said(other)} |", flush=True)
    print()


def said(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.2 else f"{ratio:.2f}"


def label(
    images: str, model: Path, names: list[str], options: argparse.Namespace, *, features: str | None = None
) -> Took:
    shutil.rmtree("out", ignore_errors=True)
    run = tipsseg.label_folder(
        images,
        tipsseg.make_vocabulary(names, "none"),
        model=model,
        output="out",
        device="cpu",
        dtype=options.dtype,
        features=features,
        use_cache=True,
    )
    return of_an_image(run)


def of_an_image(results: Iterable[object]) -> Took:
    """From the first result to the last."""
    number, began = -1, (0.0, 0.0)
    for result in results:
        if isinstance(result, tipsseg.Failed):
            raise result.error
        number += 1
        if not number:
            began = time.perf_counter(), time.process_time()
        ended = time.perf_counter(), time.process_time()
    return Took(*((end - start) / number for start, end in zip(began, ended, strict=True)))


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
        made = [each for each in results if isinstance(each, tipsseg.Encoded)]
        sizes = [(each.bytes, each.file.stat().st_size) for each in made]
        print(f"| {dtype} | {told} | {sizes[0][0]:,} | {sizes[0][1]:,} |", flush=True)
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
                kept = Features.from_record(features.record(dtype), features.patches.device)
                differ[dtype].append(float(np.mean(labeller.label(kept).labels != plain)))
        shares = " | ".join(f"{np.mean(each):.3%}, at most {max(each):.3%}" for each in differ.values())
        print(f"| {what} ({len(differ['int8'])}) | {shares} |", flush=True)


def pictures(folder: Path) -> Generator[Path, None, None]:
    yield from sorted(each for each in folder.rglob("*") if each.suffix in (".png", ".jpg", ".gif", ".bmp", ".webp"))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
