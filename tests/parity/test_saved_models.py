"""Models that transformers saved, in all its ways, and each key of its configurations: features against its own, or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    Tipsv2Config,
    Tipsv2Model,
    Tipsv2TextConfig,
    Tipsv2VisionConfig,
)

from tipsseg import load
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.errors import CheckpointError

PHRASES = ["panda", "a tree", "the leg of a sitting panda"]


def noisy(model: Tipsv2Model) -> Tipsv2Model:
    """The model with random weights, so that each of its parts matters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "temperature":
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 1 + noise * 0.1)
    return model


def opened(folder: Path) -> Tipsv2Backbone:
    return Tipsv2Backbone(folder, "cpu", "float32")


def assert_features(ours: Tipsv2Backbone, theirs: Tipsv2Model) -> None:
    """Text vectors, and patch and class tokens of pictures of the native and another size, equal to 1e-4 of the largest value."""
    theirs = theirs.float().eval()
    one_number = isinstance(theirs.vision_model.config.patch_size, int)
    tokens = [ours._checkpoint.tokenizer.encode(each) for each in PHRASES]
    with torch.inference_mode():
        expected = torch.cat(
            [theirs.text_model(input_ids=torch.tensor([each]), return_dict=True).pooler_output for each in tokens]
        )
        assert_close(ours.encode_text(PHRASES, ["{}"]), F.normalize(expected, dim=-1))
        side, patch = ours.native_size, ours.patch_size
        for size in ((side, side), (2 * patch, 3 * patch)):
            if size != (side, side) and not one_number:
                continue  # transformers cannot
            pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
            tokens_of = theirs.vision_model(pixel_values=pixels, return_dict=True).last_hidden_state  # [1, N, D]
            output = ours.vision_encoder(pixels)
            assert_close(output.patches.flatten(1, 2), tokens_of[:, ours.vision_encoder.config.num_prefix_tokens :])
            assert_close(output.cls, tokens_of[:, 0])


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


# ---- the ways of saving ----


def built(folder: Path) -> Tipsv2Model:
    """A model that never was a file: its configuration, and the weights of the folder."""
    model = Tipsv2Model(Tipsv2Config.from_pretrained(folder))
    model.load_state_dict(Tipsv2Model.from_pretrained(folder).state_dict())
    return model


def saved_again(folder: Path, target: Path) -> None:
    """transformers' own names, read and saved: some come back as the hub has them, some do not."""
    Tipsv2Model.from_pretrained(folder).save_pretrained(target / "first", save_original_format=False)
    Tipsv2Model.from_pretrained(target / "first").save_pretrained(target)


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "read and saved": lambda folder, target: Tipsv2Model.from_pretrained(folder).save_pretrained(target),
    "under transformers' names": lambda folder, target: Tipsv2Model.from_pretrained(folder).save_pretrained(
        target, save_original_format=False
    ),
    "under transformers' names, read and saved": saved_again,
    "built and saved": lambda folder, target: built(folder).save_pretrained(target),
    "built, under transformers' names": lambda folder, target: built(folder).save_pretrained(
        target, save_original_format=False
    ),
    "in float16": lambda folder, target: Tipsv2Model.from_pretrained(folder, dtype=torch.float16).save_pretrained(
        target
    ),
    "in bfloat16": lambda folder, target: Tipsv2Model.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(
        target, save_original_format=False
    ),
}


@pytest.fixture(params=["mlp_checkpoint", "swiglu_checkpoint"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_features_of_a_saved_model(folder: Path, tmp_path: Path, way: str) -> None:
    WAYS[way](folder, tmp_path)
    shutil.copy(folder / "tokenizer.model", tmp_path)
    theirs = Tipsv2Model.from_pretrained(tmp_path, dtype=torch.float32)
    ours = opened(tmp_path)
    assert_features(ours, theirs)
    # Rounded by the dtype alone, the temperature stays as the configuration has it.
    assert ours.temperature == 0.02


#: Names of the vision tower up to transformers 5.17, where they were others.
UP_TO_5_17 = {
    "blocks.": "encoder.layer.",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.w12.": ".mlp.weights_in.",
    ".mlp.w3.": ".mlp.weights_out.",
}


def test_features_of_a_model_that_an_older_transformers_saved(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        old = name.replace("vision_encoder.", "vision_model.")
        for now, then in UP_TO_5_17.items() if old != name else ():
            old = old.replace(now, then)
        if ".attn.qkv." in old:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                tensors[old.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.clone()
        else:
            tensors[old] = tensor
    save_file(tensors, tmp_path / "model.safetensors")
    assert_features(opened(tmp_path), Tipsv2Model.from_pretrained(folder))


@pytest.mark.parametrize(
    ("stored", "temperature"),
    [
        (torch.tensor(0.02), 0.02),
        (torch.tensor(0.02, dtype=torch.bfloat16), 0.02),
        (torch.tensor([0.02], dtype=torch.float16), 0.02),
        (torch.tensor(0.0201), 0.0201),
        (torch.tensor(0.02, dtype=torch.bfloat16).float(), 0.02001953125),
        (torch.tensor(0.03, dtype=torch.bfloat16), 0.030029296875),
    ],
    ids=str,
)
def test_a_temperature_that_was_learned_counts(
    mlp_checkpoint: Path, tmp_path: Path, stored: Tensor, temperature: float
) -> None:
    for lazy in (False, True):
        backbone = Tipsv2Backbone(
            with_tensor(mlp_checkpoint, tmp_path / str(lazy), stored), "cpu", "float32", lazy=lazy
        )
        assert backbone.temperature == pytest.approx(temperature, rel=1e-7)


@pytest.mark.parametrize("value", [0.0, -0.02, float("nan"), float("inf"), [0.02, 0.03]], ids=str)
def test_a_temperature_that_is_none_is_refused(mlp_checkpoint: Path, tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match="temperature") as caught:
        opened(with_tensor(mlp_checkpoint, tmp_path / "model", torch.tensor(value)))
    assert caught.value.tensor == "temperature"
    assert caught.value.path.name == "model.safetensors"


def with_tensor(folder: Path, target: Path, temperature: Tensor) -> Path:
    shutil.copytree(folder, target)
    save_file({**load_file(folder / "model.safetensors"), "temperature": temperature}, target / "model.safetensors")
    return target


# ---- what transformers saves that is no model yet ----


def shards(folder: Path, target: Path) -> None:
    Tipsv2Model.from_pretrained(folder).save_pretrained(target, max_shard_size="100KB")
    shutil.copy(folder / "tokenizer.model", target)


def fast_tokenizer(folder: Path, target: Path) -> None:
    Tipsv2Model.from_pretrained(folder).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)


def adapter(_: Path, target: Path) -> None:
    target.mkdir()
    (target / "adapter_config.json").write_text("{}")
    save_file({}, target / "adapter_model.safetensors")


def vision_alone(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target)
    Tipsv2Model.from_pretrained(folder).vision_model.save_pretrained(target)


@pytest.mark.parametrize(
    ("save", "messages"),
    [
        (shards, ["model.safetensors: no such file", "sharded", "save_pretrained"]),
        (fast_tokenizer, ["tokenizer.model: no such file", "tokenizer.json", "Copy tokenizer.model", "weights path"]),
        (adapter, ["config.json: no such file", "LoRA", "merge_and_unload"]),
        (vision_alone, ["config.json: model_type is 'tipsv2_vision_model', not 'tipsv2'"]),
    ],
)
def test_messages_name_missing_parts(
    mlp_checkpoint: Path, tmp_path: Path, save: Callable[[Path, Path], None], messages: list[str]
) -> None:
    save(mlp_checkpoint, tmp_path / "model")
    with pytest.raises(CheckpointError) as caught:
        load(str(tmp_path / "model"), device="cpu", dtype="float32")
    for message in messages:
        assert message in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("text_model.encoder.layers.0.self_attn.k_proj.bias"),
            "resblocks.0.attn.in_proj_bias is missing",
        ),
        (
            lambda t: t.update({"text_encoder.transformer.resblocks.1.attn.in_proj_bias": torch.zeros(192)}),
            "are the same tensor, text_encoder.transformer.resblocks.1.attn.in_proj_bias",
        ),
        (
            lambda t: t.update({"text_encoder.ln_final.bias": torch.zeros(64)}),
            "text_encoder.ln_final.bias and text_model.final_layer_norm.bias are the same tensor",
        ),
        (
            lambda t: t.update({"text_model.encoder.layers.0.self_attn.k_proj.bias": torch.zeros(63)}),
            "text_model.encoder.layers.0.self_attn.k_proj.bias has shape [63], but",
        ),
        (
            lambda t: t.update({"vision_model.layernorm.weight": torch.zeros(65)}),
            "tensor vision_model.layernorm.weight has shape [65], but config.json requires [64]",
        ),
        (lambda t: t.update({"vision_model.head.weight": torch.zeros(2)}), "vision_model.head.weight is not part"),
    ],
)
def test_a_wrong_tensor_is_named_as_the_file_names_it(
    mlp_checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    WAYS["under transformers' names"](mlp_checkpoint, tmp_path)
    shutil.copy(mlp_checkpoint / "tokenizer.model", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path)
    assert message in caught.value.message


# ---- the keys of the configurations ----

SMALL: dict[str, dict[str, object]] = {
    "vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56},
    "text_config": {
        "vocab_size": 1200,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}

# Another value of each key that a configuration of transformers has. A key that is not here fails the test.
EVERYWHERE: dict[str, object] = {
    "transformers_version": "9.9.9",
    "architectures": ["Other"],
    "output_hidden_states": True,
    "return_dict": False,
    "dtype": "bfloat16",
    "chunk_size_feed_forward": 8,
    "is_encoder_decoder": True,
    "id2label": {"0": "panda"},
    "label2id": {"panda": 0},
    "problem_type": "regression",
    "model_type": "tipsv2",
    "output_attentions": True,
}
OTHERS: dict[str, dict[str, object]] = {
    "": {
        **EVERYWHERE,
        "temperature_init_value": 0.5,
        "vision_config": SMALL["vision_config"],
        "text_config": SMALL["text_config"],
    },
    "vision_config": {
        **EVERYWHERE,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "mlp_ratio": 2.5,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_dropout_prob": 0.5,
        "attention_probs_dropout_prob": 0.5,
        "initializer_range": 0.5,
        "layer_norm_eps": 0.05,
        "image_size": [42, 42],
        "patch_size": [28, 28],
        "num_channels": 4,
        "qkv_bias": False,
        "layerscale_value": 0.5,
        "drop_path_rate": 0.5,
        "use_swiglu_ffn": True,
        "num_register_tokens": 3,
        "apply_layernorm": False,
        "reshape_hidden_states": False,
        "out_features": ["stage1"],
        "out_indices": [1],
        "stage_names": ["stem", "stage1", "stage2"],
    },
    "text_config": {
        **EVERYWHERE,
        "vocab_size": 1300,
        "hidden_size": 32,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "hidden_act": "gelu",
        "layer_norm_eps": 0.05,
        "attention_dropout": 0.5,
        "pad_token_id": 5,
        "bos_token_id": 5,
        "eos_token_id": 5,
        "initializer_range": 0.5,
        "scale_sqrt_depth": False,
        "pooling_epsilon": 0.5,
    },
}
#: Keys that only go together.
TOGETHER = {"out_features": ["out_indices"], "out_indices": ["out_features"]}
#: Keys by which transformers holds, or returns, its own values in another form, which could not be compared.
ON_RETURN = {"dtype", "return_dict", "output_attentions"}
REFUSED = {
    "vision_config": {"hidden_act", "num_channels", "qkv_bias", "apply_layernorm"},
    "text_config": {"hidden_act", "scale_sqrt_depth", "pooling_epsilon"},
    "": set[str](),
}


def keys_of(config: PretrainedConfig) -> set[str]:
    """The keys that its class has, and those that it saves."""
    return {key for key in ({each.name for each in fields(config)} | set(config.to_dict())) if not key.startswith("_")}


CASES = [
    (section, key)
    for section, config in (
        ("", Tipsv2Config()),
        ("vision_config", Tipsv2VisionConfig()),
        ("text_config", Tipsv2TextConfig()),
    )
    for key in sorted(keys_of(config))
]


@pytest.mark.parametrize(("section", "key"), CASES)
def test_a_key_counts_as_in_transformers_or_is_refused(
    mlp_checkpoint: Path, tmp_path: Path, section: str, key: str
) -> None:
    values: dict[str, Any] = json.loads(json.dumps(SMALL))
    for each in (key, *TOGETHER.get(key, [])):
        # The towers are as wide as each other.
        for inside in [*SMALL] if each == "hidden_size" else [section]:
            (values[inside] if inside else values)[each] = OTHERS[section][each]
    if key in REFUSED[section]:
        (tmp_path / "config.json").write_text(json.dumps(values))
        shutil.copy(mlp_checkpoint / "model.safetensors", tmp_path)
        shutil.copy(mlp_checkpoint / "tokenizer.model", tmp_path)
        with pytest.raises(CheckpointError) as caught:
            opened(tmp_path)
        assert caught.value.path == tmp_path / "config.json"
        assert f"{section}.{key} is {OTHERS[section][key]!r}" in caught.value.message
        return
    heard = json.loads(json.dumps(values))
    if key in ON_RETURN:
        (heard[section] if section else heard).pop(key)
    theirs = noisy(Tipsv2Model(Tipsv2Config(**heard)))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values))
    shutil.copy(mlp_checkpoint / "tokenizer.model", tmp_path)
    ours = opened(tmp_path)
    assert_features(ours, theirs)
    assert ours.temperature == values.get("temperature_init_value", 0.005065968260169029)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision_config": {"rope_theta": 100.0}}, "vision_config.rope_theta is 100.0"),
        ({"text_config": {"head_dim": 64}}, "text_config.head_dim is 64"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"vision_config": {"hidden_act": None}}, "vision_config.hidden_act is None"),
        ({"vision_config": {"interpolate_antialias": False}}, "vision_config.interpolate_antialias is False"),
        ({"vision_config": {"image_size": [56, 42]}}, "vision_config.image_size is [56, 42]"),
        ({"vision_config": {"hidden_size": [64, 64]}}, "vision_config.hidden_size is [64, 64]"),
    ],
)
def test_a_key_that_nobody_knows_is_refused(
    mlp_checkpoint: Path, tmp_path: Path, values: Mapping[str, Any], message: str
) -> None:
    config = json.loads((mlp_checkpoint / "config.json").read_text())
    for key, value in values.items():
        config[key] = {**config.get(key, {}), **value}
    shutil.copytree(mlp_checkpoint, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path / "model")
    assert message in caught.value.message


def test_the_activation_of_a_plain_mlp_does_not_matter_to_swiglu(swiglu_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(swiglu_checkpoint, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "silu"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert_features(opened(tmp_path / "model"), Tipsv2Model.from_pretrained(tmp_path / "model"))
