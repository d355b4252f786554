"""Dtype "auto" on a CPU: when a block is timed, what is taken, and what the cache keeps. No test depends on a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tipsseg
from tipsseg.backbones.tipsv2 import auto_dtype as auto
from tipsseg.backbones.tipsv2 import backbone
from tipsseg.backbones.tipsv2.auto_dtype import auto_dtype, time_ratio
from tipsseg.backbones.tipsv2.config import VisionConfig
from tipsseg.backbones.workers import Workers

B14 = VisionConfig()
NARROW = replace(B14, hidden_size=192, num_attention_heads=3, mlp_hidden_size=768)


class Measured:
    """Gives a ratio, and counts how often."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.times = 0

    def __call__(self, config: VisionConfig, workers: Workers) -> float:
        self.times += 1
        return self.ratio


@pytest.fixture(autouse=True)
def with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "emulates_bfloat16", lambda: False)


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers()


@pytest.mark.parametrize(
    ("ratio", "dtype"),
    [(0.3, torch.bfloat16), (0.8, torch.bfloat16), (0.81, torch.float32), (1.0, torch.float32), (9.0, torch.float32)],
)
def test_bfloat16_has_to_win_by_a_quarter(workers: Workers, tmp_path: Path, ratio: float, dtype: torch.dtype) -> None:
    for cache in (None, tmp_path, tmp_path):
        assert auto_dtype(B14, workers, cache, Measured(ratio)) == dtype


@pytest.mark.parametrize("by", ["processor", "threads", "torch", "model"])
def test_what_decides_the_time_decides_the_file(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    auto_dtype(B14, workers, tmp_path, Measured(0.5))
    config = B14
    if by == "processor":
        monkeypatch.setattr(auto, "processor_name", lambda: "another")
    elif by == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    elif by == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    else:
        config = replace(B14, num_hidden_layers=24)
    later = Measured(2.0)
    assert auto_dtype(config, workers, tmp_path, later) == torch.float32
    assert later.times == 1
    assert len(list((tmp_path / "dtype").iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff{", id="not JSON"),
        pytest.param(b"[" * 5_000, id="nested too deeply"),
        pytest.param(b"[0.5]", id="no object"),
        pytest.param(b'{"ratio": "0.5"}', id="text"),
        pytest.param(b'{"ratio": NaN}', id="no number"),
        pytest.param(b'{"ratio": -0.5}', id="negative"),
        pytest.param(b'{"ratio": 0.5}' + b" " * 10_000, id="too large"),
    ],
)
def test_a_damaged_file_is_measured_again_and_replaced(workers: Workers, tmp_path: Path, content: bytes) -> None:
    auto_dtype(B14, workers, tmp_path, Measured(0.5))
    (file,) = (tmp_path / "dtype").iterdir()
    file.write_bytes(content)
    assert auto_dtype(B14, workers, tmp_path, Measured(2.0)) == torch.float32
    assert json.loads(file.read_bytes())["ratio"] == 2.0


def test_a_cache_that_cannot_be_written_is_no_error(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "dtype").write_text("a file")
    assert auto_dtype(B14, workers, tmp_path, Measured(0.5)) == torch.bfloat16


def test_of_processes_that_measure_at_once_the_first_decides(workers: Workers, tmp_path: Path) -> None:
    def slowly(config: VisionConfig, workers: Workers) -> float:
        auto_dtype(config, workers, tmp_path, Measured(0.5))
        return 2.0

    assert auto_dtype(B14, workers, tmp_path, slowly) == torch.bfloat16


def refuse(config: VisionConfig, workers: Workers) -> float:
    raise AssertionError("timed")


@pytest.mark.parametrize("why", ["a narrow tower", "no instructions"])
def test_what_is_known_is_not_timed(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no instructions":
        monkeypatch.setattr(auto, "emulates_bfloat16", lambda: True)
    assert auto_dtype(NARROW if why == "a narrow tower" else B14, workers, tmp_path, refuse) == torch.float32
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("swiglu", [False, True])
def test_a_block_is_timed_and_nothing_of_the_program_changes(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, swiglu: bool
) -> None:
    monkeypatch.setattr(auto, "_SECONDS", 0)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert 0 < time_ratio(replace(NARROW, use_swiglu_ffn=swiglu), workers) < float("inf")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


# ---- where it is used ----


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.dtype], list[Path | None]]:
    """Let "auto" be a dtype; gives the caches that are handed over from then on."""

    def choose(dtype: torch.dtype) -> list[Path | None]:
        caches: list[Path | None] = []

        def fixed(config: VisionConfig, workers: Workers, cache: Path | None) -> torch.dtype:
            caches.append(cache)
            return dtype

        monkeypatch.setattr(backbone, "auto_dtype", fixed)
        return caches

    return choose


def test_load_takes_what_was_chosen(
    chosen: Callable[[torch.dtype], list[Path | None]], mlp_checkpoint: Path, tmp_path: Path
) -> None:
    caches = chosen(torch.bfloat16)
    assert tipsseg.load(mlp_checkpoint, device="cpu").backbone.dtype_name == "bfloat16"
    assert tipsseg.load(mlp_checkpoint, device="cpu", cache=tmp_path).backbone.dtype_name == "bfloat16"
    assert tipsseg.load(mlp_checkpoint, device="cpu", dtype="float32").backbone.dtype_name == "float32"
    assert caches == [None, tmp_path]


def test_the_embedded_model_is_float32() -> None:
    assert tipsseg.load("tiny", device="cpu").backbone.dtype_name == "float32"
