"""Measure the cost of `tipsseg label` in addition to its vision tower.

    python tests/benchmarks/endtoend.py --images 64 --rounds 3

Draws photographs of 640 x 480 pixels (JPEG) and labels them with B/14 in its real size, seeded random weights, 20 phrases and the
automatic background, into png and coco. A round times the command for all images and for one image, each in a new process, and the
tower alone for the windows of the other images. Prints the ratio and the peak memory (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from models import machine, save_model
from PIL import Image

from tipsseg import LabelOptions
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling.golden import draw_picture
from tipsseg.labelling.view import view_of
from tipsseg.options import default_jobs

CLASSES = (
    "panda,tree,house,car,boat,dog,cat,horse,cow,sheep,bird,bus,train,bicycle,person,chair,table,bottle,flower,umbrella"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure tipsseg label against its vision tower.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=64, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is printed")
    parser.add_argument("--model", default="b14", choices=("b14", "l14"), help="whose architecture")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--batch-size", type=int, default=8, help="windows at once")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="threads beside the model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = save_model(options.model, place / "model")
        draw(place / "imgs", options.images)
        draw(place / "one", 1)
        how = [
            *("--device", options.device, "--dtype", options.dtype),
            *("--batch-size", str(options.batch_size), "--jobs", str(options.jobs)),
        ]
        os.environ["TIPSSEG_CACHE"] = str(place / "cache")
        label(place, "one", model, how)  # the text vectors are kept from here on
        print(f"{options.images} images, {options.model}, {options.device} {options.dtype}; {machine('torch')}\n")
        rounds = [one_round(place, model, how, options.images) for _ in range(options.rounds)]
    print("| | median of the rounds |\n|---|---|")
    print(f"| the run less its start, over the tower alone | {statistics.median(each[0] for each in rounds):.3f} |")
    print(f"| the start over the tower for one image | {statistics.median(each[1] for each in rounds):.2f} |")
    print(f"| peak memory, MB | {statistics.median(each[2] for each in rounds):.0f} |")
    print("\neach round:", ", ".join(f"{each[0]:.3f}" for each in rounds))


def draw(folder: Path, number: int) -> None:
    """Draw photographs: one picture with different colours and grain."""
    folder.mkdir()
    plain = draw_picture(480, 640)
    for index in range(number):
        rng = np.random.default_rng(index)
        grain = rng.normal(0, 6, plain.shape)
        pixels = np.roll(plain, index, 2)[:, :: (-1) ** index] * rng.uniform(0.6, 1, 3) + grain
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:04}.jpg", quality=92)


def one_round(place: Path, model: Path, how: Sequence[str], number: int) -> tuple[float, float, float]:
    """Return (run over tower, start over tower for one image, peak memory in MB)."""
    whole, peak = label(place, "imgs", model, how)
    single, _ = label(place, "one", model, how)
    tower = tower_alone(place / "imgs", model, how, number - 1)
    return (whole - single) / tower, single / (tower / (number - 1)), peak


def label(place: Path, images: str, model: Path, how: Sequence[str]) -> tuple[float, float]:
    """Label a folder, and return (seconds, peak memory in MB)."""
    command = [
        sys.executable,
        "-m",
        "tipsseg",
        "label",
        images,
        "-c",
        CLASSES,
        "-m",
        str(model),
        "-f",
        "png,coco",
        "-q",
        "-o",
        "out",
        *how,
    ]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--no-resume"], cwd=place, stdout=subprocess.DEVNULL) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if run.returncode:
        raise RuntimeError(f"exit code {run.returncode}")
    return seconds, usage.ru_maxrss / 1e3


def tower_alone(folder: Path, model: Path, how: Sequence[str], number: int) -> float:
    """Return the seconds of the vision tower for prepared windows of that many images."""
    backbone = Tipsv2Backbone(model, how[1], how[3], int(how[5]))
    steps = []
    for path in sorted(folder.iterdir())[:number]:
        with Image.open(path) as image:
            steps.append(view_of(backbone, LabelOptions()).prepare(image).windows())
    if backbone.batch_size > 1:
        windows = [window for image in steps for window in image]
        steps = [windows[start : start + backbone.batch_size] for start in range(0, len(windows), backbone.batch_size)]
    backbone.encode_windows(steps[0]).patches.cpu()  # to warm up
    began = time.perf_counter()
    for step in steps:
        last = backbone.encode_windows(step).patches[-1]
    last.cpu()
    return time.perf_counter() - began


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
