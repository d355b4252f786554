"""Measure the peak memory of `tipsseg label` on a very large image, relative to decoding it (Linux).

    python tests/benchmarks/large.py

Draws a picture of 20,000 x 10,000 pixels as JPEG and as TIFF, and labels it with the embedded model into --formats. The reference
is a process that imports Pillow and loads the image. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from models import machine
from PIL import Image

from tipsseg.labelling.golden import draw_picture

CLASSES = "panda,tree,house,car,grass,sky,water,rock"
DECODE = "import sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = None; Image.open(sys.argv[1]).load()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the memory of one large image.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(10_000, 20_000), metavar=("HEIGHT", "WIDTH"), help="pixels of the picture"
    )
    parser.add_argument("--formats", default="png,coco", help="with commas")
    options = parser.parse_args()
    height, width = options.size
    print(f"{width} x {height} pixels into {options.formats}; {machine('torch', 'pillow')}\n")
    print(
        "| file | decoding alone, MB | tipsseg label, MB | above decoding, MB | time over decoding |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in ("picture.jpg", "picture.tif"):
            path = Path(folder, name)
            draw(path, height, width)
            decoding, least = peak([sys.executable, "-c", DECODE, str(path)])
            command = [sys.executable, "-m", "tipsseg", "label", str(path), "-c", CLASSES, "-m", "tiny", "-q"]
            more = [
                "--max-pixels",
                str(height * width),
                "-f",
                options.formats,
                "-o",
                str(Path(folder, f"out{path.suffix}")),
                "--no-resume",
            ]
            labelling, seconds = peak([*command, *more])
            print(
                f"| {path.suffix} | {decoding:.0f} | {labelling:.0f} | {labelling - decoding:.0f} | {seconds / least:.1f} |"
            )


def draw(path: Path, height: int, width: int) -> None:
    """Draw the picture in a process of its own."""
    if os.fork() == 0:
        Image.fromarray(draw_picture(height // 10, width // 10)).resize((width, height), Image.Resampling.BICUBIC).save(
            path
        )
        os._exit(0)
    os.wait()


def peak(command: Sequence[str]) -> tuple[float, float]:
    """Run a command, and return (peak memory in MB, seconds)."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise RuntimeError(f"exit code {run.returncode}")
    return usage.ru_maxrss / 1e3, time.perf_counter() - began


if __name__ == "__main__":
    main()
