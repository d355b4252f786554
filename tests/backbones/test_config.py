from __future__ import annotations

from pathlib import Path

import pytest

from tinytips.recipe.network import nested_config
from tipsseg.backbones.tipsv2.config import (
    ModelConfig,
    TextConfig,
    VisionConfig,
    parse_config,
    read_config,
)
from tipsseg.errors import CheckpointError

FLAT = {"model_type": "tipsv2", "patch_size": 14, "img_size": 448, "init_values": 1.0, "num_register_tokens": 1}
FLAT |= {"vocab_size": 32000, "max_len": 64}


def flat(
    vision_fn: str, width: int, mlp: int, heads: int, layers: int, ffn: str, temperature: float
) -> dict[str, object]:
    return {
        **FLAT,
        "vision_fn": vision_fn,
        "embed_dim": width,
        "text_hidden_size": width,
        "text_mlp_dim": mlp,
        "text_num_heads": heads,
        "text_num_layers": layers,
        "ffn_layer": ffn,
        "temperature": temperature,
    }


# The four released models: flat config, and what the nested one states beyond the defaults.
RELEASED: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "b14": (flat("vit_base", 768, 3072, 12, 12, "mlp", 0.005065968260169029), {"model_type": "tipsv2"}),
    "l14": (
        flat("vit_large", 1024, 4096, 16, 12, "mlp", 0.004785141441971064),
        {
            "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
            "text_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
            "temperature_init_value": 0.004785141441971064,
        },
    ),
    "so400m14": (
        flat("vit_so400m", 1152, 4304, 16, 27, "mlp", 0.004638021811842918),
        {
            "vision_config": {
                "hidden_size": 1152,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "mlp_ratio": 4304 / 1152,
            },
            "text_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
            },
            "temperature_init_value": 0.004638021811842918,
        },
    ),
    "g14": (
        flat("vit_giant2", 1536, 6144, 24, 12, "swiglu", 0.003622700460255146),
        {
            "vision_config": {
                "hidden_size": 1536,
                "num_hidden_layers": 40,
                "num_attention_heads": 24,
                "use_swiglu_ffn": True,
            },
            "text_config": {"hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 24},
            "temperature_init_value": 0.003622700460255146,
        },
    ),
}
PARAMETERS = {"b14": 195_948_288, "l14": 487_941_120, "so400m14": 861_726_816, "g14": 1_525_085_696}
TENSORS = {"b14": 323, "l14": 491, "so400m14": 713, "g14": 715}


@pytest.mark.parametrize("model", RELEASED)
def test_both_shapes_say_the_same(model: str) -> None:
    by_flat, by_nested = (parse_config(values, Path("config.json")) for values in RELEASED[model])
    assert by_flat == by_nested
    assert parse_config(nested_config(by_flat), Path("config.json")) == by_flat


@pytest.mark.parametrize("model", RELEASED)
def test_released_sizes_have_the_published_number_of_parameters(model: str) -> None:
    import torch

    from tipsseg.backbones.tipsv2.checkpoint import Tipsv2

    with torch.device("meta"):
        towers = Tipsv2(parse_config(RELEASED[model][0], Path("config.json")))
    assert sum(tensor.numel() for tensor in towers.state_dict().values()) == PARAMETERS[model]
    assert len(towers.state_dict()) == TENSORS[model]


def test_an_empty_nested_config_is_b14() -> None:
    assert parse_config({}, Path("config.json")) == ModelConfig(VisionConfig(), TextConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "should be a JSON object"),
        ('{"vision_config": 0}', "vision_config should be a JSON object"),
        ('{"vision_fn": "vit_base"}', "'ffn_layer' is missing or unknown"),
        (" " * (1 << 20) + "{}", "larger than 1,048,576 bytes"),
        ('{"model_type": "clip"}', "model_type is 'clip', not 'tipsv2'"),
        (
            '{"vision_config": {"hidden_size": "768"}}',
            "vision_config.hidden_size is '768', but should be a whole number",
        ),
        (
            '{"text_config": {"num_hidden_layers": 257}}',
            "num_hidden_layers is 257, but should be a whole number from 1 to",
        ),
        ('{"vision_config": {"hidden_size": 384}}', "the towers differ in width: vision 384, text 768"),
        ('{"vision_config": {"num_attention_heads": 7}}', "width 768 is not a multiple of the towers' 7 and 12 heads"),
        ('{"vision_config": {"image_size": 450}}', "image_size 450 is not a multiple of patch_size 14"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_config(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert message in caught.value.message
