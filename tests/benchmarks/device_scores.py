"""Compare labelling an image on a GPU with labelling it on one core of the host.

    python tests/benchmarks/device_scores.py --device cuda

The device holds cosines of 640 x 480 and 4000 x 3000 pixels, those of `scoring.py`. For 20, 150 and 1,000 classes, every round
times `assign.match` on one core, including the copy of the cosines; labels and confidences computed on the device and copied to the
host; and the time that this blocks the thread of the model. Prints a table in Markdown. `--device cpu` only shows that the script
works.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from models import machine
from scoring import TEMPERATURE, drawn_cosines, naming

from tipsseg.labelling.scoring.assign import Assignment, match
from tipsseg.labelling.scoring.device_scores import DeviceScorer
from tipsseg.labelling.scoring.scores import WindowScores

SIZES = ((480, 640), (3000, 4000))
CLASSES = (20, 150, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure scoring on a device.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is printed")
    parser.add_argument("--small", action="store_true", help="only the smaller image")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{options.rounds} rounds on {device}; {machine('torch', 'numpy')}\n")
    print(
        "| image | classes | host, ms | device, ms | of that the model waits, ms | host over device | pixels that differ |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in SIZES[:1] if options.small else SIZES:
        for classes in CLASSES:
            print(row(size, classes, device, options.rounds))


def row(size: tuple[int, int], classes: int, device: torch.device, rounds: int) -> str:
    values, plan = drawn_cosines(size, classes)
    table = naming(classes)
    scorer = DeviceScorer(table, TEMPERATURE, device)
    cosines = torch.from_numpy(values).to(device)

    def on_host() -> Assignment:
        return match(WindowScores(cosines.cpu().numpy(), plan, TEMPERATURE), size, table)

    def on_device() -> Assignment:
        done = scorer.send([cosines], [plan], size).wait()
        assert done is not None
        return done[0]

    differ = float((on_host().labels != on_device().labels).mean())
    held_up = [timed(lambda: scorer.send([cosines], [plan], size), device) for _ in range(rounds)]
    host, here = (statistics.median(timed(task, device) for _ in range(rounds)) for task in (on_host, on_device))
    numbers = f"{1e3 * host:.1f} | {1e3 * here:.2f} | {1e3 * statistics.median(held_up):.2f} | {host / here:.0f}"
    return f"| {size[1]} x {size[0]} | {classes} | {numbers} | {np.format_float_scientific(differ, 1)} |"


def timed(task: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a task on an idle device. The task itself waits for the device if it needs to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
