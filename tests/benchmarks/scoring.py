"""Measure the time and memory of scoring, for 10 to 1,000 classes and up to 24 megapixels, and check that pruning is exact.

    python tests/benchmarks/scoring.py --rounds 3

The cosines are synthetic: a picture of objects, in which a patch is a mixture of the class vectors of nearby objects, a part common
to all patches, and noise. Cosines with the own class are about 0.3, with others 0.1, with a noise of 0.03. Prints tables in
Markdown; memory is the increase in a separate process (Linux).

    python tests/benchmarks/scoring.py --loops --rounds 15

compares the loops compiled by numba with numpy on images of 640 x 480: on random cosines, on slowly varying cosines, on the
synthetic ones, and on those of `tiny` for examples/scenes. Both are timed in turn, by CPU time.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from features import MANY, NAMES, SCENES
from numpy.typing import NDArray

import tipsseg
from tipsseg.labelling.scoring.assign import Assignment, LabelTable, match
from tipsseg.labelling.scoring.compiled import match as compiled
from tipsseg.labelling.scoring.scores import Scores, WindowScores
from tipsseg.labelling.windows import make_plan
from tipsseg.types import LabelArray, WindowPlan, label_dtype

Match = Callable[[Scores, tuple[int, int], LabelTable], Assignment]

WIDTH = 768
TEMPERATURE = 0.005
CASES = (((3000, 4000), 10), ((3000, 4000), 100), ((3000, 4000), 1000))
MEMORY_CASES = (((4000, 6000), 150), ((4000, 6000), 1000), ((10_000, 20_000), 150))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the scoring step.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is printed")
    parser.add_argument(
        "--memory-of", type=int, nargs=3, metavar=("HEIGHT", "WIDTH", "CLASSES"), help="of one image only"
    )
    parser.add_argument("--loops", action="store_true", help="compare the loops that numba compiles with numpy")
    options = parser.parse_args()
    if options.memory_of:
        height, width, classes = options.memory_of
        print(memory_of((height, width), classes))
        return
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tipsseg", "numpy"))
    print(f"{options.rounds} rounds; {versions}; {platform.machine()}, {os.cpu_count()} cores, {platform.system()}\n")
    if options.loops:
        measure_loops(options.rounds)
        return
    measure_time(options.rounds)
    measure_memory()


def measure_time(rounds: int) -> None:
    times: dict[tuple[tuple[int, int], int], list[float]] = {case: [] for case in CASES}
    for number in range(rounds + 1):
        for size, classes in CASES:
            cosines, plan = drawn_cosines(size, classes)
            began = time.perf_counter()
            match(WindowScores(cosines, plan, TEMPERATURE), size, naming(classes))
            if number:
                times[size, classes].append(time.perf_counter() - began)
    least = statistics.median(times[CASES[0]])
    print(f"| image | classes | time relative to {CASES[0][1]} classes (median) | ns a pixel |\n|---|---|---|---|")
    for (height, width), classes in CASES:
        seconds = statistics.median(times[(height, width), classes])
        print(f"| {width} x {height} | {classes} | {seconds / least:.2f} | {seconds / height / width * 1e9:.0f} |")
    print()


def measure_loops(rounds: int) -> None:
    if compiled.load_loops() is None:
        raise SystemExit("There is no numba that can be used: pip install 'tipsseg[numba]'.")
    print(
        "| cosines | phrases | loops over numpy (median) | other labels | confidence is off by, mean | by more than 0.01 |"
    )
    print("|---|---|---|---|---|---|")
    for name, images in loop_cases().items():
        times: dict[Match, list[float]] = {match: [], compiled.match: []}
        for _ in range(rounds + 1):
            for make, taken in times.items():
                began = time.thread_time()
                for image in images:
                    make(WindowScores(image.cosines, image.plan, image.temperature), image.size, naming(image.phrases))
                taken.append(time.thread_time() - began)
        numpy_time, loop_time = (statistics.median(taken[1:]) for taken in times.values())
        labels, off = [], []
        for image in images:
            expected, found = (
                make(WindowScores(image.cosines, image.plan, image.temperature), image.size, naming(image.phrases))
                for make in times
            )
            labels.append(np.mean(expected.labels != found.labels))
            off.append(np.abs(expected.confidence - found.confidence).reshape(-1))
        errors = np.concatenate(off)
        print(
            f"| {name} | {images[0].phrases} | {loop_time / numpy_time:.2f} | {np.mean(labels):.4%} | {errors.mean():.1e} | "
            f"{np.mean(errors > 0.01):.2%} |",
            flush=True,
        )


@dataclass(frozen=True)
class Scored:
    """Cosines of an image, and its size."""

    cosines: NDArray[np.float32]
    plan: WindowPlan
    temperature: float
    size: tuple[int, int] = (480, 640)

    @property
    def phrases(self) -> int:
        return self.cosines.shape[3]


def loop_cases() -> dict[str, list[Scored]]:
    plan = make_plan((480, 640), 448, 448, 14)
    rng = np.random.default_rng(1)
    drawn = rng.normal(0.1, 0.03, (len(plan.corners), 32, 32, 31)).astype(np.float32)
    coarse = rng.normal(0.1, 0.05, (len(plan.corners), 31, 6, 6)).astype(np.float32)
    slow = [[cv2.resize(each, (32, 32), interpolation=cv2.INTER_CUBIC) for each in window] for window in coarse]
    return {
        "random": [Scored(drawn, plan, TEMPERATURE)],
        "slow changes": [Scored(np.ascontiguousarray(np.moveaxis(np.stack(slow), 1, 3)), plan, TEMPERATURE)],
        "the drawn ones": [Scored(*drawn_cosines((480, 640), 150), TEMPERATURE)],
        "`tiny`, 20 classes": tiny_cosines(NAMES),
        "`tiny`, 150 classes": tiny_cosines(MANY),
    }


def tiny_cosines(names: list[str]) -> list[Scored]:
    """Return the cosines of some scenes. Every phrase is its own class, background phrases too."""
    model = tipsseg.load("tiny")
    labeller = tipsseg.Labeller(model, names)
    scored = []
    for path in sorted(SCENES.rglob("*.jpg"))[:5]:
        features = model.encode(path)
        cosines = features.cosines(labeller._patches.vectors).numpy()
        scored.append(Scored(cosines, features.plan, model.backbone.temperature, features.size))
    return scored


def measure_memory() -> None:
    print("| image | classes | memory of the scoring step, MB | of that its result |\n|---|---|---|---|")
    for (height, width), classes in MEMORY_CASES:
        command = [sys.executable, __file__, "--memory-of", str(height), str(width), str(classes)]
        used = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        share = 4 if height * width <= 64_000_000 else 2
        result = height * width * (share + np.dtype(label_dtype(classes)).itemsize) / 1e6
        print(f"| {width} x {height} | {classes} | {used:.0f} | {result:.0f} |")


def memory_of(size: tuple[int, int], classes: int) -> float:
    """Return the peak MB of scoring, cosines and result included."""
    small, plan = drawn_cosines((100, 100), 10)
    match(WindowScores(small, plan, TEMPERATURE), (100, 100), naming(10))
    cosines, plan = drawn_cosines(size, classes)
    before = resident()
    match(WindowScores(cosines, plan, TEMPERATURE), size, naming(classes))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before + cosines.nbytes) / 1e6


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def naming(classes: int) -> LabelTable:
    """Return a table in which every phrase is its own class."""
    ids = np.arange(1, classes + 1, dtype=label_dtype(classes))
    return LabelTable([1] * classes, cast(LabelArray, ids), np.zeros(classes + 1, np.float32), 0)


def drawn_cosines(size: tuple[int, int], classes: int) -> tuple[NDArray[np.float32], WindowPlan]:
    """Return cosines of the windows of a drawn picture with about a dozen objects, [windows, 32, 32, P]."""
    rng = np.random.default_rng(3)
    plan = make_plan(size, 448, 448, 14)
    shared = unit(rng.standard_normal(WIDTH))
    names = unit(rng.standard_normal((classes, WIDTH)) + 0.9 * shared * np.sqrt(WIDTH) / 3)
    objects, places = rng.integers(0, classes, 24), rng.random((24, 2)) * plan.size
    windows = []
    for top, left in plan.corners:
        y, x = np.mgrid[top + 7 : top + 448 : 14, left + 7 : left + 448 : 14]
        far = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1])  # [32, 32, 24]
        parts = np.exp(-(far - far.min(2, keepdims=True)) / 10)
        content = (parts / parts.sum(2, keepdims=True)) @ names[objects]
        values = 0.35 * content + 0.3 * shared + 0.9 * unit(rng.standard_normal((32, 32, WIDTH)))
        windows.append((unit(values) @ names.T).astype(np.float32))
    return np.stack(windows), plan


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


if __name__ == "__main__":
    main()
