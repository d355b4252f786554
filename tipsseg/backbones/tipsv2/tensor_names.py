"""Translate the names of tensors in a file to those of the hub, which the towers have.

transformers has names of its own, which changed once, and splits the fused projections. `save_pretrained` turns some of them back,
others not, which depends on how the model was read: so each replacement stands by itself. All are those of its conversion mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_TOWERS = {"vision_model.": "vision_encoder.", "text_model.": "text_encoder."}

# In this order, on a name without the tower.
_REPLACED: Mapping[str, Mapping[str, str]] = {
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

# (pattern, name of the whole, parts in order): where the rows of several tensors are those of one.
_FUSED = {
    "vision_encoder.": (
        (re.compile(r"\.attn\.([qkv])_proj\."), ".attn.qkv.", ("q", "k", "v")),
        (re.compile(r"\.mlp\.(gate|up)_proj\."), ".mlp.w12.", ("gate", "up")),
    ),
    "text_encoder.": ((re.compile(r"\.attn\.([qkv])_proj\."), ".attn.in_proj_", ("q", "k", "v")),),
}


def find_sources(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Find the tensors of a file behind each tensor of the hub, in the order of their rows.

    A part without its other parts stands for itself.

    Raises:
        ValueError: Two names mean the same tensor.
    """
    parts: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for name in names:
        whole, index, count = _hub_name(name)
        known = parts.setdefault(whole, {})
        if index in known or counts.setdefault(whole, count) != count:
            raise ValueError(f"{next(iter(known.values()))} and {name} are the same tensor, {whole}")
        known[index] = name
    found: dict[str, tuple[str, ...]] = {}
    for whole, known in parts.items():
        if len(known) == counts[whole]:
            found[whole] = tuple(name for _, name in sorted(known.items()))
        else:
            found |= {name: (name,) for name in known.values()}
    return found


def _hub_name(name: str) -> tuple[str, int, int]:
    """Return the name of the hub, which of its parts this is, and of how many."""
    for theirs, ours in _TOWERS.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    for tower, replaced in _REPLACED.items():
        if name.startswith(tower):
            rest = name.removeprefix(tower)
            for theirs, ours in replaced.items():
                rest = rest.replace(theirs, ours)
            for pattern, whole, order in _FUSED[tower]:
                if found := pattern.search(rest):
                    return tower + pattern.sub(whole, rest), order.index(found[1]), len(order)
            return tower + rest, 0, 1
    return name, 0, 1
