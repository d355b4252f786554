"""The vision tower against transformers' and against its own matrix products, on the CPU, as ratios inside one run.

    python tests/benchmarks/encoder.py --rounds 5

B/14 at its real size with seeded random weights, a batch of windows of 448 pixels. Each round times, in turn, value features by
this package (float32; bfloat16), transformers' Tipsv2VisionModel with scaled dot product attention and with eager attention, and
the matrix products of the same blocks alone (linear layers and attention, on inputs of their shapes). Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Tipsv2VisionConfig, Tipsv2VisionModel

from tipsseg.model.config import VisionConfig
from tipsseg.model.vision import VisionTower

SIDE, PATCH, WIDTH, HEADS, LAYERS = 448, 14, 768, 12, 12
TOKENS = (SIDE // PATCH) ** 2 + 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the vision tower on the CPU.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(7)
    pixels = torch.rand(options.batch, 3, SIDE, SIDE)
    times = measure(candidates(pixels), options.rounds)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tipsseg", "torch", "transformers"))
    print(f"{options.batch} windows, {options.rounds} rounds; {versions}; {cpu()}, {torch.get_num_threads()} threads\n")
    ours = statistics.median(times["value features, float32"])
    print("| | time relative to value features in float32 (median of the rounds) |\n|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {statistics.median(seconds) / ours:.2f} |")


def candidates(pixels: Tensor) -> Mapping[str, Callable[[], object]]:
    """What is timed, by name."""
    tower = VisionTower(VisionConfig()).eval()  # the defaults of both configurations are B/14
    half = VisionTower(VisionConfig()).eval().to(torch.bfloat16)
    theirs = {
        name: Tipsv2VisionModel._from_config(Tipsv2VisionConfig(), attn_implementation=name).eval()
        for name in ("sdpa", "eager")
    }
    return {
        "value features, float32": lambda: tower.value_features(pixels),
        "value features, bfloat16": lambda: half.value_features(pixels.to(torch.bfloat16)),
        **{f"transformers, {name}, float32": partial(model, pixels) for name, model in theirs.items()},
        "matrix products alone, float32": products(len(pixels), torch.float32),
        "matrix products alone, bfloat16": products(len(pixels), torch.bfloat16),
    }


def products(batch: int, dtype: torch.dtype) -> Callable[[], object]:
    """The matrix products of the tower, its last block without query, key and attention."""
    x = torch.rand(batch, TOKENS, WIDTH, dtype=dtype)
    hidden = torch.rand(batch, TOKENS, 4 * WIDTH, dtype=dtype)
    heads = torch.rand(3, batch, HEADS, TOKENS, WIDTH // HEADS, dtype=dtype)
    qkv, proj, up, down = (
        torch.rand(out, into, dtype=dtype)
        for out, into in ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))
    )

    def run() -> None:
        for layer in range(LAYERS):
            last = layer == LAYERS - 1
            F.linear(x, qkv[: WIDTH if last else None])
            if not last:
                F.scaled_dot_product_attention(*heads)
            F.linear(x, proj)
            F.linear(x, up)
            F.linear(hidden, down)

    return run


@torch.inference_mode()
def measure(tasks: Mapping[str, Callable[[], object]], rounds: int) -> Mapping[str, list[float]]:
    """Seconds of each task in each round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if number:
                times[name].append(time.perf_counter() - began)
    return times


def cpu() -> str:
    """The machine, in words."""
    flags = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} ({flags}), {os.cpu_count()} cores, {platform.system()}"


if __name__ == "__main__":
    main()
