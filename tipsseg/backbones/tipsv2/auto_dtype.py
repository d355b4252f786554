"""Dtype "auto" on a CPU: bfloat16 where it makes a block of the model's vision tower faster by a quarter, otherwise float32.

Both are timed. A cache keeps the result for each processor and model, because the dtype decides labels, and two measurements near
the limit may differ.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from tipsseg.backbones.devices import lacks_bfloat16_instructions
from tipsseg.backbones.tipsv2.config import VisionConfig
from tipsseg.backbones.tipsv2.vision import Block
from tipsseg.backbones.workers import Workers
from tipsseg.errors import TipssegError
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.processor import processor_name

#: bfloat16 is taken where its time is at most this part of float32's. It rounds more, so a small gain is not enough.
MOST = 0.8

#: Towers of fewer channels are computed in float32 and not timed. One of their blocks takes a millisecond, which is too short to
#: time well, and their whole tower costs no more than making labels. Released models have 768 channels or more.
_CHANNELS = 384

#: A window has about 1,024 tokens. A part of them is enough, because the time of nearly all products is in proportion.
_TOKENS = 128

#: After so many seconds no further round begins.
_SECONDS = 0.4

#: The size of a file of the cache, at most.
_FILE_BYTES = 10_000


def auto_dtype(
    config: VisionConfig,
    workers: Workers,
    cache: Path | None,
    measure: Callable[[VisionConfig, Workers], float] | None = None,
) -> torch.dtype:
    """Choose torch.float32 or torch.bfloat16 for a CPU.

    Args:
        config: The vision tower of the model.
        workers: The threads that will compute it.
        cache: A folder that keeps what was measured. None: nothing is read or written.
        measure: Gives the time in bfloat16 over that in float32. None: `time_ratio`.
    """
    if config.hidden_size < _CHANNELS or lacks_bfloat16_instructions():
        return torch.float32
    file = None if cache is None else _file(cache, config)
    ratio = _read(file)
    if ratio is None:
        ratio = (measure or time_ratio)(config, workers)
        # Several processes may have measured at once; the first to write decides for all.
        earlier = _read(file)
        if earlier is not None:
            ratio = earlier
        elif file is not None:
            with suppress(TipssegError):
                atomic_write(file, json_bytes({**_decides(config), "ratio": ratio}))
    return torch.bfloat16 if ratio <= MOST else torch.float32


@torch.inference_mode()
def time_ratio(config: VisionConfig, workers: Workers) -> float:
    """Time a block on all threads at once: the time in bfloat16 over that in float32, each the shortest of a few rounds."""
    tasks = {dtype: _task(config, workers, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for task in tasks.values():  # kernels are made when they are first used
        task()
    shortest = dict.fromkeys(tasks, math.inf)
    ends = time.perf_counter() + _SECONDS
    while True:
        for dtype, task in tasks.items():
            began = time.perf_counter()
            task()
            shortest[dtype] = min(shortest[dtype], time.perf_counter() - began)
        if time.perf_counter() > ends:
            return shortest[torch.bfloat16] / shortest[torch.float32]


def _task(config: VisionConfig, workers: Workers, dtype: torch.dtype) -> Callable[[], object]:
    with torch.device("meta"):  # not the random numbers of the program
        block = Block(config)
    block = block.to(dtype).to_empty(device="cpu").eval()
    for parameter in block.parameters():
        parameter.fill_(1 / config.hidden_size)
    tokens = torch.linspace(-1, 1, _TOKENS * config.hidden_size).cos().to(dtype).view(1, _TOKENS, -1)  # [1, N, D]
    inputs = [tokens] * torch.get_num_threads()

    @torch.inference_mode()
    def compute(x: torch.Tensor) -> torch.Tensor:
        return block(x)

    return lambda: workers.map(compute, inputs, len(inputs))


def _decides(config: VisionConfig) -> Mapping[str, object]:
    return {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vision": asdict(config),
    }


def _file(cache: Path, config: VisionConfig) -> Path:
    return cache / "dtype" / f"{hashlib.sha256(json_bytes(_decides(config))).hexdigest()[:40]}.json"


def _read(file: Path | None) -> float | None:
    """Return the ratio in a file of the cache; None without a file, or a number in it."""
    try:
        record = None if file is None else parse(read_regular(file, _FILE_BYTES))
    except (OSError, ValueError):
        return None
    ratio = record.get("ratio") if isinstance(record, dict) else None
    return ratio if isinstance(ratio, float) and 0 < ratio < math.inf else None
