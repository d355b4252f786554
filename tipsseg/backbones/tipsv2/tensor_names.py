"""Translate a file's tensor names to the hub's names, which the towers use.

transformers has its own names, which changed once, and splits the fused projections. `save_pretrained` converts some of them back,
depending on how the model was loaded, so every replacement works independently. All replacements come from transformers'
conversion mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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


def find_sources(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each hub tensor name to the tensors in a file that make it up, in row order.

    A part of an incomplete fused tensor keeps its own name.

    Raises:
        ValueError: Two names mean the same tensor.
    """
    parts_of: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for name in names:
        whole, index, count = _hub_name(name)
        parts = parts_of.setdefault(whole, {})
        if index in parts or counts.setdefault(whole, count) != count:
            raise ValueError(f"{next(iter(parts.values()))} and {name} are the same tensor, {whole}")
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
