"""Measure the start of a command and the loading of a model (Linux), as ratios within one run.

    python tests/benchmarks/start.py --rounds 7

Prints five ratios: `tipsseg --help` to importing typer; labelling one image with the embedded model to importing torch, and the
same from stored features and cached phrases; the peak memory of loading L/14 in its real size (seeded random weights) to its file;
and the text vectors of --classes with nine templates by B/14, in batches and from the cache, to one class after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from models import machine, save_model

from tipsseg import Labeller, Model, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling.golden import draw_picture
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES

LOAD = """
import sys; from pathlib import Path; from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
Tipsv2Backbone(Path(sys.argv[1]), 'cpu', sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the start of tipsseg.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many is printed")
    parser.add_argument("--classes", type=int, default=300, help="how many phrases")
    options = parser.parse_args()
    print(f"{options.rounds} rounds; {machine('torch', 'typer', 'safetensors')}\n")
    print("| what | over what | ratio (median) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["TIPSSEG_CACHE"] = str(place / "cache")
        measure_commands(place, options.rounds)
        measure_loading(place)
        measure_texts(place, options.classes)


def measure_commands(place: Path, rounds: int) -> None:
    from PIL import Image

    Image.fromarray(draw_picture(224, 300)).save(place / "one.png")
    label = ["-m", "tipsseg", "label", "one.png", "-c", "panda,tree", "-m", "tiny", "-q", "--no-resume"]
    stored = [*label, "--features", "store", "-o", "stored"]
    run(["-m", "tipsseg", "encode", "one.png", "-m", "tiny", "-q", "-o", "store"], place)
    pairs: Mapping[str, tuple[Sequence[str], str, Sequence[str]]] = {
        "tipsseg --help": (["-m", "tipsseg", "--help"], "import typer", ["-c", "import typer"]),
        "tipsseg label of one image, tiny": (label, "import torch", ["-c", "import torch"]),
        "the same from a feature store": (stored, "import torch", ["-c", "import torch"]),
    }
    for name, (command, base, other) in pairs.items():
        ratios = []
        for _ in range(rounds + 1):
            one, two = (seconds(partial(run, words, place)) for words in (command, other))
            ratios.append(one / two)
        print(f"| {name} | {base} | {statistics.median(ratios[1:]):.2f} |", flush=True)


def measure_loading(place: Path) -> None:
    model = save_model("l14", place / "l14")
    file = (model / "model.safetensors").stat().st_size
    idle = peak(["-c", "import tipsseg.backbones.protocol"])
    for dtype in ("float32", "bfloat16"):
        used = peak(["-c", LOAD, str(model), dtype]) - idle
        print(f"| peak memory of loading l14, {dtype}, above its imports | its file | {used / file:.2f} |", flush=True)


def measure_texts(place: Path, number: int) -> None:
    backbone = Tipsv2Backbone(save_model("b14", place / "b14"), "cpu", "float32")
    names = [f"{one} {two}" for one in ("red", "old", "new", "tall") for two in range(number // 4 + 1)][:number]
    vocabulary = make_vocabulary(names, ())
    batched = seconds(lambda: backbone.encode_text(names, PROTOCOL_TEMPLATES))
    part = names[:: max(number // 50, 1)]
    single = seconds(lambda: [backbone.encode_text([name], PROTOCOL_TEMPLATES) for name in part]) * number / len(part)
    print(f"| text vectors of {number} classes, b14, in batches | one class after the other | {batched / single:.2f} |")
    first = seconds(lambda: Labeller(Model(backbone), vocabulary, cache=place / "cache"))
    again = seconds(lambda: Labeller(Model(backbone), vocabulary, cache=place / "cache"))
    print(f"| a vocabulary of {number} classes again | the first time | {again / first:.4f} |")


def run(words: Sequence[str], place: Path) -> None:
    subprocess.run([sys.executable, *words], check=True, cwd=place, stdout=subprocess.DEVNULL)


def seconds(task: Callable[[], object]) -> float:
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def peak(words: Sequence[str]) -> float:
    """Return the peak memory of a process in bytes."""
    with subprocess.Popen([sys.executable, *words]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
