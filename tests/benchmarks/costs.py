"""Measure what a photograph costs on a CPU: the seconds to encode 640 x 480 pixels, by model and dtype.

    PYTHONPATH=tests/support python tests/benchmarks/costs.py --rounds 5

Models have published sizes and seeded random weights, which take as long as any. Every round times each of them in turn. Prints
medians, and their ratios to the last model in the first dtype, as a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from models import CONFIGS, machine, save_model

import tipsseg
from tipsseg.labelling.golden import draw_picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure what a photograph costs on a CPU.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--models", default="b14,l14", help=f"of {', '.join(CONFIGS)}, or tiny; with commas")
    parser.add_argument("--dtypes", default="float32,int8,bfloat16", help="with commas")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is printed")
    options = parser.parse_args()
    names, dtypes = options.models.split(","), options.dtypes.split(",")
    image = draw_picture(480, 640)
    with tempfile.TemporaryDirectory() as folder:
        saved = {name: save_model(name, Path(folder) / name) if name in CONFIGS else name for name in names}
        models = {
            (name, dtype): tipsseg.load(str(saved[name]), device="cpu", dtype=dtype)
            for name in names
            for dtype in dtypes
        }
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in models}
        for number in range(options.rounds + 1):
            for key, model in models.items():
                began = time.perf_counter()
                model.encode(image)
                if number:  # the first round warms up
                    seconds[key].append(time.perf_counter() - began)
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    print(
        f"{options.rounds} rounds; {machine('torch')}\n\n| model | {' | '.join(dtypes)} |\n|{'---|' * (len(dtypes) + 1)}"
    )
    for name in names:
        cells = [
            f"{medians[name, each]:.2f} s ({medians[name, each] / medians[names[-1], dtypes[0]]:.2f})"
            for each in dtypes
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
