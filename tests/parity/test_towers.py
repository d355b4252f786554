"""The towers against transformers' own TIPSv2, loaded from the very same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Tipsv2Model

from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.text import Tokenizer

CPU = torch.device("cpu")

FLAT_B14: dict[str, object] = {
    "model_type": "tipsv2",
    "patch_size": 14,
    "img_size": 448,
    "init_values": 1.0,
    "num_register_tokens": 1,
    "vocab_size": 32000,
    "max_len": 64,
    "vision_fn": "vit_base",
    "embed_dim": 768,
    "text_hidden_size": 768,
    "text_mlp_dim": 3072,
    "text_num_heads": 12,
    "text_num_layers": 12,
    "ffn_layer": "mlp",
    "temperature": 0.005065968260169029,
}

TEXTS = [
    "",
    "a",
    "A photo of a Panda Leg.",
    " ".join(["tree"] * 64),
    " ".join(["a photo of a tree and a panda"] * 30),
    "itap of a chest of drawers.",
]


@pytest.fixture(params=["mlp_checkpoint", "swiglu_checkpoint", "tiny_checkpoint"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("size", [(56, 56), (70, 42), (28, 98), (112, 112)], ids=str)
def test_vision_tower_agrees(folder: Path, size: tuple[int, int]) -> None:
    ours, _ = checkpoint.load_tipsv2(folder, CPU, torch.float32)
    theirs = Tipsv2Model.from_pretrained(folder, dtype=torch.float32)
    compare_vision(ours, theirs, torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", [(56, 56), (28, 98)], ids=str)
def test_class_tokens_agree(folder: Path, size: tuple[int, int]) -> None:
    """Both of them, of unit length: what the published model compares with captions."""
    backbone = Tipsv2Backbone(folder, "cpu", "float32")
    theirs = Tipsv2Model.from_pretrained(folder, dtype=torch.float32)
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        expected = F.normalize(theirs.vision_model(pixel_values=pixels).last_hidden_state[:, :2], dim=-1)
    for features in (backbone.encode_windows([image]), backbone.encode_whole(image, size)):
        assert_close(features.class_tokens, expected)


def test_text_tower_agrees_for_texts_of_all_lengths_in_one_batch(folder: Path) -> None:
    ours, tokenizer = checkpoint.load_tipsv2(folder, CPU, torch.float32)
    compare_text(ours, Tipsv2Model.from_pretrained(folder, dtype=torch.float32), tokenizer, [0, 1, 64])


@pytest.mark.slow
def test_full_size_of_b14_in_both_config_shapes(
    make_checkpoint: Callable[[str, Mapping[str, object]], Path], tmp_path: Path
) -> None:
    """The flat shape is read here, the nested one by both; the weights are the same file."""
    flat = make_checkpoint("b14", FLAT_B14)
    ours, tokenizer = checkpoint.load_tipsv2(flat, CPU, torch.float32)
    assert sum(p.numel() for p in ours.parameters()) == 195_948_288
    assert len(ours.state_dict()) == 323
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tipsv2", "architectures": ["Tipsv2Model"]}))
    (tmp_path / "model.safetensors").hardlink_to(flat / "model.safetensors")
    shutil.copy(flat / "tokenizer.model", tmp_path)
    nested, _ = checkpoint.load_tipsv2(tmp_path, CPU, torch.float32)
    assert nested.config == ours.config
    theirs = Tipsv2Model.from_pretrained(tmp_path)
    with torch.inference_mode():
        compare_vision(ours, theirs, torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(1)))
        compare_text(ours, theirs, tokenizer, [0, 1, 64])


def compare_vision(ours: checkpoint.Tipsv2, theirs: Tipsv2Model, pixels: Tensor) -> None:
    with torch.inference_mode():
        expected = theirs.vision_model(pixel_values=pixels).last_hidden_state
        output = ours.vision_encoder(pixels)
    assert_close(output.cls, expected[:, 0])
    assert_close(output.registers, expected[:, 1:2])
    assert_close(output.patches, expected[:, 2:].reshape(output.patches.shape))


def compare_text(ours: checkpoint.Tipsv2, theirs: Tipsv2Model, tokenizer: Tokenizer, lengths_met: list[int]) -> None:
    tokens = tokenizer(TEXTS)
    assert set(lengths_met) <= set(tokens.lengths.tolist())
    mask = (torch.arange(64) < tokens.lengths[:, None]).long()
    with torch.inference_mode():
        pooled = ours.text_encoder(tokens.ids, tokens.lengths)
        expected = theirs.text_model(input_ids=tokens.ids[1:], attention_mask=mask[1:]).pooler_output
    assert_close(pooled[1:], expected)
    assert pooled[0].eq(0).all(), "the empty text has no token to average"


def assert_close(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of the largest value."""
    assert got.shape == expected.shape
    assert expected.abs().max() > 0.1
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
