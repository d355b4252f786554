"""Measure the resident memory of `tipsseg label` over many images, which should not grow with their number.

    python tests/benchmarks/memory.py --images 5000

Draws small pictures of patches in a temporary folder, labels them with the embedded model in another process, and reads the memory
of that process while it runs (Linux). Prints a table in Markdown, and the peak, which includes writing annotations.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

REPORT_AT = (1, 100, 250, 500, 1000, 2000, 3000, 4000, 5000, 10_000, 20_000, 50_000, 100_000)
TIPSSEG = (sys.executable, "-m", "tipsseg")
#: Memory at this image is 1.
FIRST = 500


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the memory of tipsseg label over many images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=5000, help="how many")
    parser.add_argument("--side", type=int, default=64, help="pixels of a picture's side")
    parser.add_argument("--classes", default="panda,tree,house,car,grass,sky,water,rock", help="the vocabulary")
    parser.add_argument("--list", action="store_true", help="give the pictures as a list on stdin, not as a folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder, "imgs"), options.images, options.side)
        measure(Path(folder), options.images, options.classes, options.list)


def draw(folder: Path, number: int, side: int) -> None:
    """Draw different pictures of coloured patches."""
    folder.mkdir()
    for index in range(number):
        patches = np.random.default_rng(index).integers(0, 256, (6, 6, 3), np.uint8)
        picture = Image.fromarray(patches).resize((side, side), Image.Resampling.NEAREST)
        (folder / f"{index // 1000:03}").mkdir(exist_ok=True)
        picture.save(folder / f"{index // 1000:03}" / f"{index:06}.png")


def measure(folder: Path, number: int, classes: str, listed: bool) -> None:
    command = [*TIPSSEG, "label", "-" if listed else "imgs", "-c", classes, "-m", "tiny", "-f", "png,coco", "-q"]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tipsseg", "torch", "numpy"))
    print(f"{number} pictures; {versions}; {platform.machine()}, {os.cpu_count()} cores, {platform.system()}\n")
    print(f"| images | resident memory, MB | of that after {FIRST} | most so far, MB |\n|---|---|---|---|")
    sizes: dict[int, float] = {}
    with subprocess.Popen([*command, "-o", "out"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        if listed:
            # From a file, as this process reads what comes back.
            run.stdin.write(b"".join(os.fsencode(path) + b"\n" for path in sorted(Path(folder, "imgs").rglob("*.png"))))
        run.stdin.close()
        done = 0
        for line in run.stdout:
            done += b"/masks/" in line
            if done in REPORT_AT and done not in sizes:
                sizes[done] = resident(run.pid, "VmRSS")
                ratio = f"{sizes[done] / sizes[FIRST]:.3f}" if done >= FIRST else ""
                print(f"| {done} | {sizes[done]:.0f} | {ratio} | {resident(run.pid, 'VmHWM'):.0f} |", flush=True)
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    records = (folder / "out" / "annotations.json").stat().st_size
    annotations = len(json.loads((folder / "out" / "annotations.json").read_bytes())["annotations"])
    print(f"| all, and the records | | | {usage.ru_maxrss / 1e3:.0f} |\n")
    print(f"annotations.json: {annotations} annotations, {records / 1e6:.1f} MB; exit code {run.returncode}")


def resident(process: int, key: str) -> float:
    """Return the MB in a line of the status of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1e3
    raise ValueError(f"no {key} of process {process}")


if __name__ == "__main__":
    main()
