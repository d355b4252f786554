"""Label many images in shards, and measure the commands that read the folder.

    PYTHONPATH=tests/support python tests/benchmarks/folders.py --images 100000

Makes a run in shards, with the images and labels of the example scenes, in a temporary folder; no model labels these images.
Prints, as tables in Markdown, seconds and peak memory of `convert --to`, of `convert -f coco` with nothing to do and
after a change of one mask, of `check` and of `rank`; then files and bytes by kind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from output_folders import make_run
from PIL import Image

from tipsseg.options.values import Shard
from tipsseg.util.files import processor_name

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
CLASSES = ("panda", "tree", "car", "road")

#: Runs a command, and prints the most memory that it took: if this process started it, the memory of this process would count.
_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Label many images in shards, and measure the commands that read the folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=10_000, help="how many")
    parser.add_argument("--shards", type=int, default=8, help="how many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.images, options.shards)


def measure(top: Path, number: int, shards: int) -> None:
    label = ["label", str(SCENES), "-c", ",".join(CLASSES), "-m", "tiny", "-o", str(top / "few"), "-f", "png", "-q"]
    subprocess.run([sys.executable, "-m", "tipsseg", *label], check=True, stdout=subprocess.DEVNULL)
    scenes = [
        (next(SCENES.glob(f"{path.relative_to(top / 'few/masks').with_suffix('')}.*")), np.array(Image.open(path)))
        for path in sorted((top / "few/masks").rglob("*.png"))
    ]
    labels = {}
    for index in range(number):
        picture, ids = scenes[index % len(scenes)]
        name = f"{index // 1000:03}/{index:06}{picture.suffix}"
        path = top / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(picture)
        labels[name] = ids
    for part in range(1, shards + 1):
        make_run(top / "out", top / "imgs", labels, CLASSES, ("png", "coco"), shard=Shard(part, shards))
    print(f"{number} images, {shards} shards; {processor_name()}, {os.cpu_count()} cores\n")
    print("| command | seconds | per image | peak memory |\n|---|---|---|---|")
    for form in ("parquet", "webdataset"):
        title = f"convert OUT -f {form} --to DIR, {shards} shards of a run"
        report(title, number, "convert", top / "out", "-f", form, "--to", top / form)
    for turn in range(2):
        report(
            ["nothing to do", "one mask changed"][turn] + ": convert OUT -f coco",
            number,
            "convert",
            top / "out",
            "-f",
            "coco",
        )
        mask = top / "out/masks/000/000007.png"
        with Image.open(mask) as image:
            ids = np.array(image)
        ids[0, :9] = 1
        Image.fromarray(ids).save(mask)
    report("check OUT", number, "check", top / "out")
    report("rank OUT", number, "rank", top / "out")
    print("\n| kind | files | bytes | bytes per image |\n|---|---|---|---|")
    files, sizes = Counter[str](), Counter[str]()
    for path in (top / "out").rglob("*"):
        if path.is_file():
            kind = path.relative_to(top / "out").parts[0]
            files[kind] += 1
            sizes[kind] += path.stat().st_size
    for kind, size in sizes.most_common():
        print(f"| {kind} | {files[kind]} | {size} | {size / number:.0f} |")


def report(title: str, number: int, *arguments: object) -> None:
    """Print the seconds and the peak memory of a command."""
    command = [sys.executable, "-m", "tipsseg", *map(str, arguments), "-q"]
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _MEASURED, *command], check=True, capture_output=True, text=True)
    seconds, memory = time.perf_counter() - began, int(ran.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(f"| {title} | {seconds:.1f} | {seconds / number * 1000:.2f} ms | {memory:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
