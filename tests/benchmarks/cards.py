"""Measure a card in one command: images a second, how full batches are, memory, and labels against those of the CPU.

    PYTHONPATH=tests/support python tests/benchmarks/cards.py --models b14,l14 --images 400

Models have published sizes and seeded random weights, so that only speed means anything, and labels are compared with those of the
CPU on a few images. Prints a table in Markdown, with the card, the processor and the versions. Runs on CUDA, MPS, or a CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from models import CONFIGS, machine, save_model
from numpy.typing import NDArray
from PIL import Image

import tipsseg
from tipsseg.backbones.devices import HostCopy, choose_device
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling.golden import draw_picture

_SIZE = 480, 640


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure a card.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--models", default="b14,l14", help=f"of {', '.join(CONFIGS)}, or tiny; with commas")
    parser.add_argument("--phrases", default="30,80,171", help="the numbers of classes, with commas")
    parser.add_argument("--images", type=int, default=400, help="of 640 x 480")
    parser.add_argument(
        "--compared", type=int, default=4, help="images whose labels are compared with those of the CPU"
    )
    parser.add_argument("--device", default=str(choose_device()[0]), help='"cuda", "mps" or "cpu"')
    options = parser.parse_args()
    print(f"{options.device}; {machine('torch')}\n")
    print(
        "| model | classes | images a second, png,coco | default formats | windows a batch | memory | labels unlike the CPU's |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        (top / "imgs").mkdir()
        (top / "few").mkdir()
        for number in range(options.images):
            picture = Image.fromarray(np.roll(draw_picture(*_SIZE), (3 * number, 7 * number), (0, 1)))
            picture.save(top / "imgs" / f"{number:05}.jpg", quality=90)
            if number < options.compared:
                picture.save(top / "few" / f"{number:05}.png")
        for name in options.models.split(","):
            model = name if name not in CONFIGS else str(save_model(name, top / name))
            for phrases in map(int, options.phrases.split(",")):
                print(f"| {name} | {phrases} | {_measure(top, model, phrases, options.device)} |", flush=True)
            print(f"\n{name}: {_count_waits(model, options.device)}\n")


def _count_waits(model: str, device: str) -> str:
    """Return how often the device is waited for in an image of 12 megapixels with 80 classes."""
    labeller = tipsseg.Labeller(tipsseg.load(model, device=device), [f"thing {number}" for number in range(80)])
    image, copies = draw_picture(3000, 4000), list[object]()
    labeller.label(image)
    arrays = HostCopy.arrays

    def spy(self: HostCopy) -> list[NDArray[Any]]:
        copies.append(self)
        return arrays(self)

    with patch.object(HostCopy, "arrays", spy), warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        if device.startswith("cuda"):
            torch.cuda.set_sync_debug_mode("warn")
        labeller.label(image)
        if device.startswith("cuda"):
            torch.cuda.set_sync_debug_mode("default")
    return f"{len(copies)} waits for copies and {len(others)} others in an image of 4,000 x 3,000, 80 classes"


def _measure(top: Path, model: str, phrases: int, device: str) -> str:
    """Return the cells of a row."""
    classes, sizes, speeds = [f"thing {number}" for number in range(phrases)], list[int](), list[float]()
    encode = Tipsv2Backbone._encode_batch

    def spy(self: Tipsv2Backbone, windows: Sequence[NDArray[np.uint8]]) -> object:
        sizes.append(len(windows))
        return encode(self, windows)

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with patch.object(Tipsv2Backbone, "_encode_batch", spy):
        for formats in (["png", "coco"], None):
            for folder in ("few", "imgs"):  # the first ones bring the model's code and weights to the device
                output = top / f"{Path(model).name}-{phrases}-{folder}-{formats is None}"
                began = time.monotonic()
                _label(top / folder, classes, output, model, device, formats)
            speeds.append(len(list((top / "imgs").iterdir())) / (time.monotonic() - began))
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device.startswith("cuda") else ""
    fill = f"{np.mean(sizes):.2f}" if sizes else ""
    unlike = list[float]()
    if device != "cpu":
        host = top / f"{Path(model).name}-{phrases}-cpu"
        _label(top / "few", classes, host, model, "cpu", ["png"])
        for path in sorted((host / "masks").iterdir()):
            other = top / f"{Path(model).name}-{phrases}-few-False" / "masks" / path.name
            unlike.append(float((np.asarray(Image.open(path)) != np.asarray(Image.open(other))).mean()))
    return " | ".join((*(f"{speed:.0f}" for speed in speeds), fill, memory, f"{np.mean(unlike):.3%}" if unlike else ""))


def _label(
    images: Path, classes: Sequence[str], output: Path, model: str, device: str, formats: Sequence[str] | None
) -> None:
    more: dict[str, Any] = {} if formats is None else {"formats": formats}
    done = tipsseg.label_folder(images, classes, output=output, model=model, device=device, verbose=False, **more)
    assert done.count("labelled") == len(list(images.iterdir()))


if __name__ == "__main__":
    main()
