"""Linear layers in 8 bits: the formula, the exact products, and the tower that uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tipsseg.backbones.devices import resolve_dtype
from tipsseg.backbones.tipsv2 import int8
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.int8 import Int8Linear
from tipsseg.errors import DeviceError


def layer(inputs: int = 192, outputs: int = 96) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(inputs, outputs).requires_grad_(False)


def tokens(rows: int, inputs: int = 192) -> torch.Tensor:
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(3))
    x[:, 5] *= 30  # a channel with outliers
    x[1] *= 100  # a token with outliers
    return x


@pytest.mark.parametrize("limit", [int8.weight_limit(), 63])
def test_the_layer_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(int8, "weight_limit", lambda: limit)
    plain, x = layer(), tokens(300)
    rounded = Int8Linear(plain)
    weight, scale = rounded.weight.double(), rounded.scale.double()
    assert weight.abs().amax(1).eq(limit).all()
    assert (weight * scale[:, None] - plain.weight).abs().le(scale[:, None] / 2 * 1.0001).all()
    token_scale = x.abs().amax(1, keepdim=True) / 127
    expected = ((x / token_scale).round().double() @ weight.T) * token_scale * scale + plain.bias
    out = torch.full((300, 96), torch.nan)
    assert rounded(x, out) is out
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    assert F.cosine_similarity(out, plain(x)).min() > 0.999


def test_products_are_exact_at_the_limit() -> None:
    """Without VNNI instructions, 127 would overflow; `weight_limit` is what the processor can do."""
    plain = layer(512, 300)
    plain.weight.fill_(1).mul_(torch.where(torch.arange(300) % 2 == 0, 1, -1)[:, None])
    plain.bias.zero_()
    for sign in (1, -1):
        got = Int8Linear(plain)(torch.full((300, 512), 3.0 * sign))
        torch.testing.assert_close(got, plain.weight[:, 0].expand(300, -1) * 512 * 3.0 * sign)


def test_products_are_exact_without_vnni() -> None:
    """On x86, oneDNN reads the variable when it starts; elsewhere it changes nothing."""
    program = (
        "import torch; from tipsseg.backbones.tipsv2.int8 import weight_limit; limit = weight_limit()\n"
        "x, w = torch.full((300, 768), 127, dtype=torch.int8), torch.full((512, 768), limit, dtype=torch.int8)\n"
        "assert (torch._int_mm(x, w.t()) == 127 * limit * 768).all(); assert (torch._int_mm(-x, w.t()) == -127 * limit * 768).all()"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


def test_a_token_does_not_depend_on_other_tokens() -> None:
    rounded, x = Int8Linear(layer()), tokens(300)
    together = rounded(x)
    for rows in (slice(0, 1), slice(1, 2), slice(200, 300)):
        assert torch.equal(rounded(x[rows]), together[rows])


def test_tokens_of_zeros_and_without_numbers() -> None:
    plain = layer()
    plain.weight[0] = 0
    x = tokens(4)
    x[0], x[1, 3], x[2, 3] = 0, torch.nan, torch.inf
    got = Int8Linear(plain)(x)
    assert torch.equal(got[0], plain.bias)
    assert got[3, 0] == plain.bias[0]
    assert not got[1:3].isfinite().any()
    assert got[3].isfinite().all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_features_are_near_those_in_float32(mlp_checkpoint: Path, swiglu_checkpoint: Path, number: int) -> None:
    rng = np.random.default_rng(3)
    windows = [rng.integers(0, 256, (56, 56, 3), np.uint8) for _ in range(number)]
    for folder in (mlp_checkpoint, swiglu_checkpoint):
        exact, rounded = (Tipsv2Backbone(folder, "cpu", dtype).encode_windows(windows) for dtype in ("float32", "int8"))
        for name in ("patches", "class_tokens"):
            cosines = F.cosine_similarity(getattr(exact, name), getattr(rounded, name), dim=-1)
            assert 0.99 < cosines.min() < 1 - 1e-7


def test_int8_is_refused_where_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="device mps does not support int8") as caught:
        resolve_dtype("int8", torch.device("mps"))
    assert "device cpu" in caught.value.hint
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="without oneDNN") as caught:
        resolve_dtype("int8", torch.device("cpu"))
    assert "dtype float32" in caught.value.hint
