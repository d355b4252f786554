"""Read config.json and the header of model.safetensors, but no tensors. Import torch only for a learned temperature.

The towers use the hub's tensor names. transformers has its own names, which changed once, and splits the fused projections.
`save_pretrained` converts some of them back, depending on how the model was loaded, so every replacement works independently.
All replacements come from transformers' conversion mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import safe_open

from tipsseg.backbones.tipsv2.config import TEMPERATURE_BOUNDS, ModelConfig, read_config, reading
from tipsseg.errors import CheckpointError
from tipsseg.util.text import shorten
from tipsseg.weights.lock import CONFIG_FILE, WEIGHTS_FILE

#: Supported tensor dtypes.
_FLOATS = ("F64", "F32", "F16", "BF16")

#: Name of the learned temperature, a tensor outside the towers. The released files lack it.
_TEMPERATURE = "temperature"

_ONE_MODEL = "config.json and model.safetensors must come from one model."

TensorShape = tuple[int, ...]

_TOWERS = {"vision_model.": "vision_encoder.", "text_model.": "text_encoder."}

# Applied in this order to a name without its tower prefix.
_REPLACEMENTS: Mapping[str, Mapping[str, str]] = {
    "vision_encoder.": {
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.": "",
        "layernorm.": "norm.",
        "encoder.layer.": "blocks.",
        ".attention.output.dense.": ".attn.proj.",
        ".attention.o_proj.": ".attn.proj.",
        ".attention.attention.query.": ".attn.q_proj.",
        ".attention.attention.key.": ".attn.k_proj.",
        ".attention.attention.value.": ".attn.v_proj.",
        ".attention.": ".attn.",
        ".layer_scale1.lambda1": ".ls1.gamma",
        ".layer_scale2.lambda1": ".ls2.gamma",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
        ".mlp.weights_in.": ".mlp.w12.",
        ".mlp.weights_out.": ".mlp.w3.",
        ".mlp.down_proj.": ".mlp.w3.",
    },
    "text_encoder.": {
        "embeddings.token_embedding.": "token_embedding.",
        "final_layer_norm.": "ln_final.",
        "encoder.layers.": "transformer.resblocks.",
        ".layer_norm1.": ".ln_1.",
        ".layer_norm2.": ".ln_2.",
        ".self_attn.": ".attn.",
        ".mlp.fc1.": ".mlp.c_fc.",
        ".mlp.fc2.": ".mlp.c_proj.",
    },
}

# (pattern, fused name, parts), with the parts in the order of their rows in the fused tensor.
_FUSED = {
    "vision_encoder.": (
        (re.compile(r"\.attn\.([qkv])_proj\."), ".attn.qkv.", ("q", "k", "v")),
        (re.compile(r"\.mlp\.(gate|up)_proj\."), ".mlp.w12.", ("gate", "up")),
    ),
    "text_encoder.": ((re.compile(r"\.attn\.([qkv])_proj\."), ".attn.in_proj_", ("q", "k", "v")),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The tensors of a weights file.

    Attributes:
        path: The file.
        shapes: The shape of each tensor of the towers, by its name in the file.
        sources: The tensors that make up each tensor of the towers, by its hub name, in the order of their rows.
    """

    path: Path
    shapes: Mapping[str, TensorShape]
    sources: Mapping[str, tuple[str, ...]]

    def check(self, expected: Mapping[str, TensorShape]) -> None:
        """Raise CheckpointError, which names the first faulty tensor, unless all expected tensors have their shapes."""
        for name, (rows, *others) in expected.items():
            if name not in self.sources:
                raise self.error(name, f"is missing, but {CONFIG_FILE} requires it")
            parts = self.sources[name]
            shape = (rows // len(parts), *others)
            for part in parts:
                if self.shapes[part] != shape:
                    found, needed = list(self.shapes[part]), list(shape)
                    raise self.error(part, f"has shape {found}, but {CONFIG_FILE} requires {needed}")

    def error(self, tensor: str, reason: str) -> CheckpointError:
        return CheckpointError(self.path, f"tensor {shorten(tensor)} {reason}", _ONE_MODEL, tensor=tensor)


def read_headers(folder: Path) -> tuple[ModelConfig, Header]:
    """Read the configuration with the learned temperature, and the header. Raise CheckpointError if a file is invalid.

    The tensors that determine the window are compared with the configuration, so that nobody resizes an image to a wrong size.
    """
    config = read_config(folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    shapes: dict[str, TensorShape] = {}
    with reading(path), safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  not a dict
            tensor = file.get_slice(name)
            shapes[name] = tuple(tensor.get_shape())
            if tensor.get_dtype() not in _FLOATS:
                reason = f"tensor {shorten(name)} is {tensor.get_dtype()}, not floating point ({', '.join(_FLOATS)})"
                raise CheckpointError(path, reason, tensor=name)
    if shapes.pop(_TEMPERATURE, None) is not None:
        config = replace(config, temperature=_read_temperature(path, config.temperature))
    header = Header(path=path, shapes=shapes, sources=_find_sources(path, shapes))
    vision = config.vision
    header.check(
        {
            "vision_encoder.patch_embed.proj.weight": (vision.hidden_size, 3, vision.patch_size, vision.patch_size),
            "vision_encoder.pos_embed": (1, 1 + vision.grid_size**2, vision.hidden_size),
        }
    )
    return config, header


def _read_temperature(path: Path, configured: float) -> float:
    """Read the learned temperature, which transformers saves in the model's dtype.

    If the number in config.json rounds to the saved one in that dtype, it is more exact and is used.
    """
    import torch  # numpy has no bfloat16

    with reading(path), safe_open(path, framework="pt", device="cpu") as file:
        learned: torch.Tensor = file.get_tensor(_TEMPERATURE)
    low, high = TEMPERATURE_BOUNDS
    if learned.numel() != 1 or not low <= learned.item() <= high:
        reason = f"tensor {_TEMPERATURE} should be a number from {low:g} to {high:g}"
        raise CheckpointError(path, reason, _ONE_MODEL, tensor=_TEMPERATURE)
    rounded = torch.tensor(configured, dtype=learned.dtype)
    return configured if learned.item() == rounded.item() else learned.item()


def _find_sources(path: Path, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each hub tensor name to the tensors in a file that make it up, in row order.

    A part of an incomplete fused tensor keeps its own name. Raise CheckpointError if two names mean the same tensor.
    """
    parts_of: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for name in names:
        whole, index, count = _hub_name(name)
        parts = parts_of.setdefault(whole, {})
        if index in parts or counts.setdefault(whole, count) != count:
            reason = f"tensors {next(iter(parts.values()))} and {name} are the same tensor, {whole}"
            raise CheckpointError(path, reason, _ONE_MODEL)
        parts[index] = name
    sources: dict[str, tuple[str, ...]] = {}
    for whole, parts in parts_of.items():
        if len(parts) == counts[whole]:
            sources[whole] = tuple(name for _, name in sorted(parts.items()))
        else:
            sources |= {name: (name,) for name in parts.values()}
    return sources


def _hub_name(name: str) -> tuple[str, int, int]:
    """Return the hub's tensor name, the index of this part, and the number of parts."""
    for theirs, ours in _TOWERS.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    for tower, replacements in _REPLACEMENTS.items():
        if name.startswith(tower):
            rest = name.removeprefix(tower)
            for theirs, ours in replacements.items():
                rest = rest.replace(theirs, ours)
            for pattern, whole, order in _FUSED[tower]:
                if match := pattern.search(rest):
                    return tower + pattern.sub(whole, rest), order.index(match[1]), len(order)
            return tower + rest, 0, 1
    return name, 0, 1
