"""Change one mask in a folder of many images, and measure the command that updates annotations.json.

    PYTHONPATH=tests/support python tests/benchmarks/one_mask.py --images 100000

Makes an output folder of that many small images in a temporary folder. Prints, as a table in Markdown, the median seconds of
`tipsseg convert OUT -f coco` with nothing to do, and after a change of one mask; and the seconds to write annotations.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from output_folders import CLASSES, make_run
from PIL import Image

from tipsseg.util.files import atomic_write
from tipsseg.util.processor import processor_name

SIDE = 24


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Change one mask in a folder of many images, and time `tipsseg convert -f coco`.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=20_000, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.images, options.rounds)


def measure(top: Path, number: int, rounds: int) -> None:
    names = [f"{index // 1000:03}/{index:06}.png" for index in range(number)]
    for name in names:
        path = top / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("000.png"):
            Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(path)
        else:
            os.link(path.with_name(f"{path.stem[:3]}000.png"), path)
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:12, 4:12], ids[14:20, 8:20] = 1, 2
    make_run(top / "out", top / "imgs", dict.fromkeys(names, ids), CLASSES, ("png", "coco"))

    mask, turns = top / "out/masks" / names[number // 2], iter(range(1, rounds + 1))

    def convert() -> None:
        subprocess.run([sys.executable, "-m", "tipsseg", "convert", top / "out", "-f", "coco", "-q"], check=True)

    def change_and_convert() -> None:
        changed = ids.copy()
        changed[0, : next(turns)] = 1
        Image.fromarray(changed).save(mask)
        convert()

    file = top / "out/annotations.json"
    data = file.read_bytes()
    print(
        f"{number} images; annotations.json has {len(data) / 1e6:.1f} MB; {processor_name()}, {os.cpu_count()} cores\n"
    )
    print("| command | seconds |\n|---|---|")
    works: list[tuple[str, Callable[[], None]]] = [
        ("nothing to do", convert),
        ("one mask changed", change_and_convert),
        ("annotations.json alone is written", lambda: atomic_write(top / "copy.json", data)),
    ]
    for title, work in works:
        print(f"| {title} | {statistics.median(_seconds(work) for _ in range(rounds)):.2f} |", flush=True)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
