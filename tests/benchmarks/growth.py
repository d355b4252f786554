"""Processor time per image and peak memory of the commands on folders of 1,000 and of 10,000 images (Linux).

    python tests/benchmarks/growth.py --images 1000 10000

Images are distinct pictures of 8 x 8 pixels. One is encoded, and its features are stored for all. Each command is a process; the
processor time of the same command on 10 images is taken off. Prints a table in Markdown.

label     over the feature store, into --formats
correct   from a folder with a changed mask for each image
rank      with the feature store
report    of the folder
fit       to the changed masks, of which it draws some
tune      the temperature to them, likewise
convert   into labelme
check     of the folder
merge     of 8 shards in place
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tipsseg.features.file import Origin, read_feature_file
from tipsseg.features.folder import FeatureStore, list_files, read_store
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.processor import processor_name

SHARDS = 8
START = 10
SHORT_SIDE = "56"


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time in seconds, and peak memory in MB."""

    seconds: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--formats", default="png,coco,yolo")
    parser.add_argument("--work", type=Path, help="where temporary folders are made")
    options = parser.parse_args()
    print(f"Into {options.formats}; {processor_name()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    costs: dict[int, dict[str, Cost]] = {}
    for number in (START, START, *options.images):  # the first time fills the user's cache
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            costs[number] = dict(measure_all(Path(folder), number, options.formats))
    few, many = options.images[0], options.images[-1]
    titles = [f"{number:,}: ms per image, MB" for number in options.images]
    print(f"| command | {' | '.join(titles)} | time, memory {many:,} / {few:,} |")
    print("|---" * (len(titles) + 2) + "|")
    for name, start in costs[START].items():
        each = {number: (costs[number][name].seconds - start.seconds) / (number - START) for number in options.images}
        cells = [f"{1e3 * each[number]:.3f}, {costs[number][name].memory:.0f}" for number in options.images]
        ratio = f"{each[many] / each[few]:.2f}, {costs[many][name].memory / costs[few][name].memory:.2f}"
        print(f"| {name} | {' | '.join(cells)} | {ratio} |")


def measure_all(folder: Path, number: int, formats: str) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of each command on a new folder with this number of images."""
    os.chdir(folder)
    draw_images(Path("imgs"), number)
    fill_store(Path("features"), sorted(Path("imgs").rglob("*.png")))
    label = ["label", "imgs", "-c", "panda,tree", "-m", "tiny", "--device", "cpu", "--short-side", SHORT_SIDE]
    label += ["--features", "features", "-f", formats]
    yield "label", run(*label, "-o", "out")
    for mask in Path("out/masks").rglob("*.png"):
        place = Path("changed", mask.relative_to("out/masks"))
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat([[1], [2]], (3, 5), 0).repeat(8, 1).astype(np.uint8)).save(place)
    yield "correct", run("correct", "out", "--from", "changed")
    yield "rank", run("rank", "out", "--features", "features")
    yield "report", run("report", "out")
    yield "fit", run("fit", "out", "--features", "features", "-o", "learnt.fit")
    yield "tune", run("tune", "out", "--features", "features", "--temperature", "-o", "tuned.fit")
    yield "convert", run("convert", "out", "-f", "labelme")
    yield "check", run("check", "out")
    for shard in range(1, SHARDS + 1):
        run(*label, "-o", "shards", "--shard", f"{shard}/{SHARDS}")
    yield "merge", run("merge", "shards", "-o", "shards")


def draw_images(folder: Path, number: int) -> None:
    random = np.random.default_rng(0)
    for index in range(number):
        path = folder / f"{index // 100:04}" / f"{index:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def fill_store(folder: Path, images: Sequence[Path]) -> None:
    """Encode the first image, and store its features for all images."""
    run("encode", images[0], "-m", "tiny", "--device", "cpu", "--short-side", SHORT_SIDE, "-o", folder)
    stored = read_store(folder)
    features = read_feature_file(next(list_files(folder)))
    assert stored is not None
    assert features.origin is not None
    store = FeatureStore(folder, stored)
    for image in images[1:]:
        origin = Origin(content_digest(image), image.name, features.origin.recipe)
        store.add(replace(features, origin=origin))


def run(*arguments: object) -> Cost:
    # Linux counts the memory of the process that starts another as the other's peak: torch must not be imported here.
    assert "torch" not in sys.modules
    command = [sys.executable, "-m", "tipsseg", *map(str, arguments), "-q"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


if __name__ == "__main__":
    main()
