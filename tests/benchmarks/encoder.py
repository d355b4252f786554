"""Compare the vision tower with transformers' and with its own matrix products, as ratios within one run.

    python tests/benchmarks/encoder.py --rounds 5
    python tests/benchmarks/encoder.py --rounds 5 --busy 1
    python tests/benchmarks/encoder.py --model l14 --device cuda --dtypes bfloat16,float32 --batch 16

The model has a published size and seeded random weights; windows have 448 pixels. Every round times, in turn: value features as the
encoder computes them (on a CPU one window per thread, and the remaining windows shared by all; on a GPU all windows at once); on a
CPU also with every operation divided between all threads, one window after the other; transformers' Tipsv2VisionModel on the same
windows; and only the matrix products of the same blocks (linear layers and attention, on inputs of the same shapes). Prints a table
in Markdown, and the rate of the tower relative to that of a large matrix product. Ratios are medians over rounds. With --busy,
other processes keep some cores busy.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import truediv
from pathlib import Path

import torch
import torch.nn.functional as F
from models import CONFIGS, machine
from torch import Tensor
from transformers import Tipsv2VisionConfig, Tipsv2VisionModel

from tipsseg.backbones.tipsv2.config import VisionConfig, parse_config
from tipsseg.backbones.tipsv2.inference import TowerInference
from tipsseg.backbones.tipsv2.int8 import round_to_int8
from tipsseg.backbones.tipsv2.vision import VisionTower
from tipsseg.backbones.workers import Workers

#: In int8, only linear layers have 8 bits; everything else is float32.
DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the vision tower.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is printed")
    parser.add_argument("--batch", type=int, default=4, help="windows, of one image on a CPU")
    parser.add_argument("--model", choices=tuple(CONFIGS), default="b14", help="whose architecture")
    parser.add_argument("--layers", type=int, help="of the tower, to measure in less time; else the model's")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--dtypes", default="float32,bfloat16", help="with commas")
    parser.add_argument("--attention", default="sdpa", help="of transformers, with commas: sdpa, eager")
    parser.add_argument("--busy", type=int, default=0, help="cores that other processes keep busy")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="of all threads, in place of the clock's: for a machine that is not quiet; time spent waiting does not count",
    )
    options = parser.parse_args()
    config = parse_config(CONFIGS[options.model], Path("config.json")).vision
    config = replace(config, num_hidden_layers=options.layers or config.num_hidden_layers)
    torch.manual_seed(7)
    print(
        f"{options.model}, {config.num_hidden_layers} layers, {options.batch} windows, {options.rounds} rounds, ",
        end="",
    )
    kind = "CPU time" if options.cpu_time else "time"
    print(f"{options.busy} cores kept busy, {kind}; {machine('torch', 'transformers')}\n")
    dtypes, attention = options.dtypes.split(","), options.attention.split(",")
    tasks: dict[str, Callable[[], object]] = {}
    for name in dtypes:
        tasks |= candidates(config, options.batch, torch.device(options.device), name, attention)
    floats = [name for name in dtypes if name != "int8"]
    tasks |= {f"a large matrix product, {name}": square(options.device, name) for name in floats}
    with busy(options.busy):
        times = measure(tasks, options.rounds, time.process_time if options.cpu_time else time.perf_counter)
    for name in dtypes:
        print(f"| | {kind} over value features in {name} (median) |\n|---|---|")
        ours = times[f"value features, {name}"]
        for other, seconds in times.items():
            if not other.startswith("a large") and (other.endswith(f", {name}") or name == dtypes[0]):
                print(f"| {other} | {statistics.median(map(truediv, seconds, ours)):.2f} |")
        print()
    for name in floats:
        ours = times[f"value features, {name}"]
        rate = flops(config) * options.batch / statistics.median(ours)
        best = 2 * SQUARE**3 / statistics.median(times[f"a large matrix product, {name}"])
        print(f"{name}: {statistics.median(ours) / options.batch:.2f} s a window, ", end="")
        print(f"{rate / best:.0%} of the rate of a {SQUARE} x {SQUARE} matrix product")


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Run processes that keep cores busy until the block ends."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()


#: Rows and columns of the matrix product that the machine's rate is measured by.
SQUARE = 4096


def candidates(
    config: VisionConfig, batch: int, device: torch.device, dtype: str, attention: list[str]
) -> Mapping[str, Callable[[], object]]:
    """Return the timed tasks by name."""
    kind = DTYPES[dtype]
    pixels = torch.rand(batch, 3, config.image_size, config.image_size, dtype=kind, device=device)
    tower, workers = VisionTower(config).eval().to(device, kind), Workers()
    if dtype == "int8":
        round_to_int8(tower)
    alone, shared = TowerInference(tower), TowerInference(tower, workers)
    ours: dict[str, Callable[[], object]] = {f"value features, {dtype}": partial(alone, pixels)}
    if device.type == "cpu":
        ours = {
            f"value features, {dtype}": partial(encode_windows, shared, workers, pixels),
            f"a window after the other, {dtype}": lambda: [alone(window) for window in pixels.split(1)],
        }
    if dtype == "int8":
        return ours
    theirs = {
        name: Tipsv2VisionModel._from_config(their_config(config), attn_implementation=name).eval().to(device, kind)
        for name in attention
    }
    return {
        **ours,
        **{f"transformers, {name}, {dtype}": partial(model, pixels) for name, model in theirs.items()},
        f"matrix products alone, {dtype}": products(config, batch, device, kind),
    }


def encode_windows(features: TowerInference, workers: Workers, pixels: Tensor) -> None:
    """Encode windows as `Tipsv2Backbone` encodes those of an image on a CPU."""
    number = len(pixels) - len(pixels) % workers.count
    workers.map(features, pixels[:number].split(1) if number else (), workers.count)
    if number < len(pixels):
        features(pixels[number:])


def their_config(config: VisionConfig) -> Tipsv2VisionConfig:
    return Tipsv2VisionConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
    )


def tokens_of(config: VisionConfig) -> int:
    return config.grid_size**2 + config.num_prefix_tokens


def flops(config: VisionConfig) -> float:
    """Count the operations of the matrix products of one window. The last block has no query, key and attention."""
    tokens, width, layers = tokens_of(config), config.hidden_size, config.num_hidden_layers
    linear = 2 * tokens * width * (4 * width + 2 * config.mlp_hidden_size)
    attention = 4 * tokens**2 * width
    return layers * linear - 2 * tokens * width * 2 * width + (layers - 1) * attention


def products(config: VisionConfig, batch: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """Compute the matrix products of the tower. The last block has no query, key and attention."""
    tokens, width, hidden, heads = (
        tokens_of(config),
        config.hidden_size,
        config.mlp_hidden_size,
        config.num_attention_heads,
    )

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=dtype, device=device)

    x, inner, parts = (
        rand(batch, tokens, width),
        rand(batch, tokens, hidden),
        rand(3, batch, heads, tokens, width // heads),
    )
    qkv, proj, up, down = rand(3 * width, width), rand(width, width), rand(hidden, width), rand(width, hidden)

    def run() -> None:
        for layer in range(config.num_hidden_layers):
            last = layer == config.num_hidden_layers - 1
            F.linear(x, qkv[: width if last else None])
            if not last:
                F.scaled_dot_product_attention(*parts)
            F.linear(x, proj)
            F.linear(x, up)
            F.linear(inner, down)

    return run


def square(device: str, dtype: str) -> Callable[[], object]:
    """Compute one large matrix product."""
    one, two = torch.rand(2, SQUARE, SQUARE, device=device).to(DTYPES[dtype])
    return lambda: one @ two


@torch.inference_mode()
def measure(
    tasks: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> Mapping[str, list[float]]:
    """Return the seconds of each task in each round, after a round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            began = clock()
            task()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            elif torch.backends.mps.is_available():
                torch.mps.synchronize()
            if number:
                times[name].append(clock() - began)
    return times


if __name__ == "__main__":
    main()
