"""The networks that are trained here: their sizes, how they begin, and how they are written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.config import ModelConfig, TextConfig, VisionConfig
from tipsseg.backbones.tipsv2.text import Tokenizer
from tipsseg.weights.lock import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE

TEMPERATURE = 0.04
MAX_TOKENS = 64
PATCH = 14  # pixels, of every TIPSv2


@dataclass(frozen=True, slots=True)
class Size:
    """Width and depth of the vision tower, and the side of its images in pixels; the text tower has two blocks of that width."""

    width: int
    depth: int
    side: int


SIZES = {
    "small": Size(128, 4, 112),  # a grid of 8 x 8
    "tiny": Size(192, 6, 224),  # a grid of 16 x 16, 7.4 MB in half precision
}


def make_config(size: Size, vocab_size: int) -> ModelConfig:
    """Heads of 64 channels, a text tower with narrow MLPs."""
    heads = size.width // 64
    return ModelConfig(
        vision=VisionConfig(
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=heads,
            mlp_hidden_size=4 * size.width,
            image_size=size.side,
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            hidden_size=size.width,
            intermediate_size=2 * size.width,
            num_hidden_layers=2,
            num_attention_heads=heads,
        ),
        temperature=TEMPERATURE,
    )


def make_model(size: Size, vocab_size: int) -> Tipsv2:
    """Small normal weights, zero biases, LayerScale at 1: the habits of ViT training."""
    model = Tipsv2(make_config(size, vocab_size))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "mask_token")):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    # The text tower multiplies its embeddings by sqrt(width); this keeps them in proportion to the positions.
    torch.nn.init.normal_(model.text_encoder.token_embedding.weight, std=size.width**-0.5)
    return model


def encode_texts(model: Tipsv2, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Unit vectors of the texts, [P, D]; padding is cut to the longest of them."""
    tokens = tokenizer(texts)
    longest = max(int(tokens.lengths.max()), 1)
    device = next(model.text_encoder.parameters()).device
    vectors = model.text_encoder(tokens.ids[:, :longest].to(device), tokens.lengths.to(device))
    return F.normalize(vectors.float(), dim=-1)


def write_model(folder: Path, model: Tipsv2, tokenizer_file: Path) -> None:
    """Write a model in the hub layout, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(nested_config(model.config), indent=2) + "\n")
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_file.read_bytes())


def nested_config(config: ModelConfig) -> dict[str, object]:
    """Return `config` in the nested layout, as a dict that `parse_config` reads back."""
    vision, text = asdict(config.vision), asdict(config.text)
    ratio = vision.pop("mlp_hidden_size") / config.vision.hidden_size
    if config.vision.use_swiglu_ffn:
        ratio = 4.0  # config.json has the ratio of the plain MLP
    vision["mlp_ratio"] = int(ratio) if ratio.is_integer() else ratio
    return {
        "architectures": ["Tipsv2Model"],
        "model_type": "tipsv2",
        "temperature_init_value": config.temperature,
        "vision_config": {"model_type": "tipsv2_vision_model", **vision},
        "text_config": {"model_type": "tipsv2_text_model", **text},
    }
