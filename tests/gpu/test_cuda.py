"""On a CUDA GPU: the labels are those of the CPU, and memory that runs out halves the batch. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tipsseg import Labeller, LabelOptions, load, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling.golden import picture
from tipsseg.options import Dtype, Mode, Refinement

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

CLASSES = ["panda", "tree", "house", "car", "sky", "grass"]


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", ["none", "pamr"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_labels_agree_with_those_of_the_cpu(
    tiny_checkpoint: Path, mode: Mode, refine: Refinement, dtype: Dtype
) -> None:
    options = LabelOptions(mode=mode, refine=refine)
    image = picture(480, 640)
    runs: tuple[tuple[str, Dtype], ...] = (("cpu", "float32"), ("cuda", dtype))
    expected, got = (
        Labeller(load(tiny_checkpoint, device=device, dtype=kind), make_vocabulary(CLASSES), options)
        .label(image)
        .labels
        for device, kind in runs
    )
    assert (got == expected).mean() >= 0.99


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_labels_do_not_depend_on_what_shares_the_batch(tiny_checkpoint: Path, dtype: str) -> None:
    backbone = Tipsv2Backbone(tiny_checkpoint, "cuda", dtype, batch_size=4)
    rng = np.random.default_rng(1)
    windows = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(7)]
    together = backbone.encode_windows(windows)
    for number, window in enumerate(windows):
        alone = backbone.encode_windows([window])
        assert torch.equal(alone.patches[0], together.patches[number])
        assert torch.equal(alone.class_tokens[0], together.class_tokens[number])


def test_memory_that_runs_out_halves_the_batch(tiny_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(tiny_checkpoint, "cuda", "float32", batch_size=4096)
    told: list[int] = []
    backbone.on_less_memory = told.append
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(0.9, 2e9 / total))
    try:
        window = np.zeros((224, 224, 3), np.uint8)
        features = backbone.encode_windows([window] * 4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told
    assert backbone.batch_size < 4096
    assert torch.isfinite(features.patches).all()
    assert free
