"""On a CUDA GPU: the labels are those of the CPU, and memory that runs out halves the batch. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tipsseg import Encoder, Labeller, LabelOptions, make_vocabulary
from tipsseg.labelling.golden import picture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

CLASSES = ["panda", "tree", "house", "car", "sky", "grass"]


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", ["none", "pamr"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_labels_agree_with_those_of_the_cpu(tiny_checkpoint: Path, mode: str, refine: str, dtype: str) -> None:
    options = LabelOptions(mode=mode, refine=refine)
    image = picture(480, 640)
    expected, got = (
        Labeller(Encoder(tiny_checkpoint, device, kind), make_vocabulary(CLASSES), options).label(image).labels
        for device, kind in (("cpu", "float32"), ("cuda", dtype))
    )
    assert (got == expected).mean() >= 0.99


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_labels_do_not_depend_on_what_shares_the_batch(tiny_checkpoint: Path, dtype: str) -> None:
    encoder = Encoder(tiny_checkpoint, "cuda", dtype, batch_size=4)
    vectors = encoder.encode_text(CLASSES, ["a {}"])
    rng = np.random.default_rng(1)
    windows = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(7)]
    together = encoder.window_cosines(windows, vectors)
    for number, window in enumerate(windows):
        assert torch.equal(encoder.window_cosines([window], vectors)[0], together[number])


def test_memory_that_runs_out_halves_the_batch(tiny_checkpoint: Path) -> None:
    encoder = Encoder(tiny_checkpoint, "cuda", "float32", batch_size=4096)
    vectors = encoder.encode_text(CLASSES, ["a {}"])
    told: list[int] = []
    encoder.on_less_memory = told.append
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(0.9, 2e9 / total))
    try:
        window = np.zeros((224, 224, 3), np.uint8)
        cosines = encoder.window_cosines([window] * 4, vectors)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told
    assert encoder.batch_size < 4096
    assert torch.isfinite(cosines).all()
    assert free
