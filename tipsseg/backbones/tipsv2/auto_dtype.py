"""Resolve dtype "auto" on a CPU: bfloat16 if a vision block takes at most 0.8 times as long as in float32, else float32.

Both are timed. The result is cached per processor and model: the dtype affects labels, and two measurements close to the limit
may disagree.
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

from tipsseg.backbones.devices import emulates_bfloat16
from tipsseg.backbones.tipsv2.config import VisionConfig
from tipsseg.backbones.tipsv2.vision import Block
from tipsseg.backbones.workers import Workers
from tipsseg.errors import TipssegError
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.processor import processor_name

#: bfloat16 is chosen if its time is at most this fraction of float32's. It rounds more, so a small gain is not enough.
MOST = 0.8

#: Towers with fewer channels run in float32 and are not timed. One of their blocks takes a millisecond, which is too short for a
#: reliable timing, and the whole tower takes no longer than the scoring. Released models have 768 channels or more.
_CHANNELS = 384

#: Tokens in the timed block. A window has about 1,024, but fewer suffice: nearly all products take time in proportion to them.
_TOKENS = 128

#: Seconds after which no new round starts.
_SECONDS = 0.4

#: Size limit of cache files in bytes; larger files are ignored.
_FILE_BYTES = 10_000


def auto_dtype(
    config: VisionConfig,
    workers: Workers,
    cache: Path | None,
    measure: Callable[[VisionConfig, Workers], float] | None = None,
) -> torch.dtype:
    """Choose torch.float32 or torch.bfloat16 for a CPU.

    Args:
        config: Configuration of the model's vision tower.
        workers: The threads that will run the tower.
        cache: Cache folder for measurements. None: no cache.
        measure: Function that returns the bfloat16 time divided by the float32 time. None: `time_ratio`.
    """
    if config.hidden_size < _CHANNELS or emulates_bfloat16():
        return torch.float32
    file = None if cache is None else _file(cache, config)
    ratio = _read(file)
    if ratio is None:
        ratio = (measure or time_ratio)(config, workers)
        # Several processes may measure at the same time; the first result in the cache is valid for all.
        earlier = _read(file)
        if earlier is not None:
            ratio = earlier
        elif file is not None:
            with suppress(TipssegError):
                atomic_write(file, json_bytes({**_cache_key(config), "ratio": ratio}))
    return torch.bfloat16 if ratio <= MOST else torch.float32


@torch.inference_mode()
def time_ratio(config: VisionConfig, workers: Workers) -> float:
    """Return a block's bfloat16 time divided by its float32 time: the shortest of a few rounds, with all threads busy."""
    tasks = {dtype: _task(config, workers, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for task in tasks.values():  # the first call prepares the kernels
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
    with torch.device("meta"):  # leaves the program's random state unchanged
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


def _cache_key(config: VisionConfig) -> Mapping[str, object]:
    return {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vision": asdict(config),
    }


def _file(cache: Path, config: VisionConfig) -> Path:
    return cache / "dtype" / f"{hashlib.sha256(json_bytes(_cache_key(config))).hexdigest()[:40]}.json"


def _read(file: Path | None) -> float | None:
    """Return the ratio in a cache file; None if the file is missing or invalid."""
    try:
        record = None if file is None else parse(read_regular(file, _FILE_BYTES))
    except (OSError, ValueError):
        return None
    ratio = record.get("ratio") if isinstance(record, dict) else None
    return ratio if isinstance(ratio, float) and 0 < ratio < math.inf else None
