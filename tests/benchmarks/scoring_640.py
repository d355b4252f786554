"""Scoring one photograph's worth of cosines on one core, this checkout against another one.

    OMP_NUM_THREADS=1 python tests/benchmarks/scoring_640.py --other ../older-checkout

640 x 480 pixels, two windows of 32 x 32 patches, 31 and 150 phrases. Three kinds of cosines: smooth ones (a field over the
picture that all patches see, and a little noise), random ones (nothing that a patch says is said by the next) and those of a
drawn picture of objects (`scoring.py`). Each checkout is measured in a process of its own, by turns. Times are those of the
thread, so that other programs disturb less. Prints medians, their ratio, and how the results differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SIZE = (480, 640)

MEASURE = """
import sys, time
import numpy as np
from tipsseg.labelling.assign import LabelTable, match
from tipsseg.labelling.scores import WindowScores
from tipsseg.labelling.windows import make_plan
from tipsseg.types import label_dtype

inputs, output = sys.argv[1:]
plan, results = make_plan((480, 640), 448, 448, 14), {}
for name, cosines in np.load(inputs).items():
    phrases = cosines.shape[3]
    ids = np.arange(1, phrases + 1, dtype=label_dtype(phrases))
    table = LabelTable([1] * phrases, ids, np.zeros(phrases + 1, np.float32), 0)
    times = []
    for _ in range(4):
        began = time.thread_time()
        made = match(WindowScores(cosines, plan, 0.005), (480, 640), table)
        times.append(time.thread_time() - began)
    results |= {f"{name} time": times[1:], f"{name} labels": made.labels, f"{name} confidence": made.confidence}
np.savez(output, **results)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure scoring on one core.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="the least of three times so many is printed")
    options = parser.parse_args()
    from pipeline import processor

    with tempfile.TemporaryDirectory() as place:
        inputs = Path(place) / "inputs.npz"
        cosines = drawn()
        np.savez(inputs, *cosines.values())
        times: dict[tuple[str, Path], list[float]] = {}
        found = {}
        for _ in range(options.rounds):
            for root in (options.other.resolve(), ROOT):
                output = Path(place) / "results.npz"
                environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
                subprocess.run([sys.executable, "-c", MEASURE, inputs, output], check=True, env=environment, cwd=place)
                found[root] = dict(np.load(output))
                for number, name in enumerate(cosines):
                    times.setdefault((name, root), []).extend(found[root][f"arr_{number} time"])
    print(f"{processor()}; {options.rounds} rounds\n")
    print(
        "| cosines | other, ms | this, ms | ratio | labels that differ | mean difference of confidence |\n"
        + "|---" * 6
        + "|"
    )
    before, now = found[options.other.resolve()], found[ROOT]
    for number, name in enumerate(cosines):
        other, this = (min(times[name, root]) * 1e3 for root in (options.other.resolve(), ROOT))
        differ = int((before[f"arr_{number} labels"] != now[f"arr_{number} labels"]).sum())
        confidence = float(np.abs(before[f"arr_{number} confidence"] - now[f"arr_{number} confidence"]).mean())
        print(f"| {name} | {other:.1f} | {this:.1f} | {other / this:.1f} | {differ} | {confidence:.1e} |")


def drawn() -> dict[str, NDArray[np.float32]]:
    """By name, [windows, 32, 32, P] float32."""
    import cv2
    from scoring import drawn_cosines

    from tipsseg.labelling.windows import make_plan

    plan, rng = make_plan(SIZE, 448, 448, 14), np.random.default_rng(1)
    made: dict[str, NDArray[np.float32]] = {}
    for phrases in (31, 150):
        shape = (len(plan.corners), 32, 32, phrases)
        field = rng.normal(0.1, 0.06, (phrases, 7, 9)).astype(np.float32)
        whole = [cv2.resize(each, plan.size[::-1], interpolation=cv2.INTER_CUBIC) for each in field]
        seen = [[each[t + 7 : t + 448 : 14, f + 7 : f + 448 : 14] for each in whole] for t, f in plan.corners]
        smooth = np.stack([np.stack(each) for each in seen]).transpose(0, 2, 3, 1)
        made[f"smooth, {phrases} phrases"] = (smooth + rng.normal(0, 0.003, shape)).astype(np.float32)
        made[f"random, {phrases} phrases"] = rng.normal(0.1, 0.03, shape).astype(np.float32)
        made[f"drawn, {phrases} phrases"] = drawn_cosines(SIZE, phrases)[0]
    return {name: np.ascontiguousarray(each) for name, each in made.items()}


if __name__ == "__main__":
    main()
