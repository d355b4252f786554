"""Compute the linear layers of TIPSv2's vision tower in 8-bit integers."""

from __future__ import annotations

from tipsseg.backbones.int8 import Int8Linear
from tipsseg.backbones.tipsv2.vision import VisionTower


def round_to_int8(tower: VisionTower) -> None:
    """Replace the linear layers of a tower on a CPU, except those of the patches and of the last queries, keys and values.

    The last block computes only the values of most tokens, from a third of its weights: one in 144 products of B/14.
    """
    for block in tower.blocks:
        for part, names in ((block.attn, ("qkv", "proj")), (block.mlp, ("fc1", "fc2", "w12", "w3"))):
            for name in names:
                if hasattr(part, name) and (name != "qkv" or block is not tower.blocks[-1]):
                    setattr(part, name, Int8Linear(getattr(part, name)))
