"""Measure `label` over a folder of labelled images of which some were renamed, beside a run without any.

    PYTHONPATH=tests/support python tests/benchmarks/renames.py --images 20000 --renamed 1000

Makes a run over pictures of one size in bytes, each with other bytes, in a temporary folder; no model labels them. Prints a table
in Markdown, seconds and peak memory of `label` with nothing to do, after the renaming, and with nothing to do again; then ratios.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from measuring import measure_command
from output_folders import CLASSES, make_run
from PIL import Image

from tipsseg.util.files import processor_name


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure label over a folder of labelled images of which some were renamed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=20_000, help="how many")
    parser.add_argument("--renamed", type=int, default=1000, help="how many of them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.images, options.renamed)


def measure(top: Path, number: int, renamed: int) -> None:
    labels, rng = {}, np.random.default_rng(0)
    ids = np.repeat(np.arange(4, dtype=np.uint8), 16).reshape(8, 8)
    for index in range(number):
        name = f"{index // 1000:03}/{index:06}.png"
        path = top / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path, compress_level=0)
        labels[name] = ids
    make_run(top / "out", top / "imgs", labels, CLASSES, ("png", "coco"))
    print(f"{number} images, {renamed} renamed; {processor_name()}, {os.cpu_count()} cores\n")
    print("| run | seconds | peak memory |\n|---|---|---|")
    run(top, "the first one, with nothing to label")
    seconds, memory = run(top, "nothing to do")
    (top / "imgs/renamed").mkdir()
    for name in [*labels][:: number // renamed][:renamed]:
        (top / "imgs" / name).rename(top / "imgs/renamed" / Path(name).name)
    more_seconds, more_memory = run(top, f"{renamed} renamed")
    run(top, "nothing to do again")
    print(
        f"\n{renamed} renamed / nothing to do: {more_seconds / seconds:.2f} x seconds, {more_memory / memory:.2f} x memory"
    )
    moved = sum(path.is_file() for path in (top / "out/masks/renamed").iterdir())
    assert moved == renamed, f"{moved} of {renamed} were followed"


def run(top: Path, title: str) -> tuple[float, float]:
    """Print and return the seconds and the peak memory of a run in MB."""
    asked = ["-m", "tiny", "-c", ",".join(CLASSES), "--background", "none", "--device", "cpu", "-f", "png,coco"]
    command = ("label", top / "imgs", *asked, "-o", top / "out", "-q")
    seconds, memory = measure_command(*command)
    print(f"| {title} | {seconds:.1f} | {memory:.0f} MB |", flush=True)
    return seconds, memory


if __name__ == "__main__":
    main()
