"""Compute the linear layers of the vision tower in 8-bit integers on a CPU.

Weights have a scale per output channel, tokens a scale each:

    y = s_x s_w (q_x . q_w) + b    with q = round(v / s), s = max |v| / 127

The scale of a token depends on no other token, so the features of a window do not depend on the other windows. Integer products are
exact, except on x86 processors without VNNI instructions: there, oneDNN adds two products in 16 bits, and weights have 7 bits, so
that the sum fits.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.vision import VisionTower

#: Most tokens multiplied at a time: enough for the product, few enough for the cache of the processor. Of 128 to 1,026, 513 took
#: the least time for the 1,026 of a window, on two cores of an AMD EPYC.
_TOKENS = 640


def round_to_int8(tower: VisionTower) -> None:
    """Replace the linear layers of a tower on a CPU, except the layers of the patches and of the last queries, keys and values.

    The last block computes only the values of most tokens, from a third of its weights: one in 144 products of B/14.
    """
    for block in tower.blocks:
        for part, names in ((block.attn, ("qkv", "proj")), (block.mlp, ("fc1", "fc2", "w12", "w3"))):
            for name in names:
                if hasattr(part, name) and (name != "qkv" or block is not tower.blocks[-1]):
                    setattr(part, name, Int8Linear(getattr(part, name)))


class Int8Linear(nn.Module):
    """A linear layer with rounded weights."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.abs().amax(1).clamp_(min=1e-12) / weight_limit()  # [E]
        rounded = (layer.weight / scale[:, None]).round_().to(torch.int8)  # [E, D]
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the layer's output in float32, written to `out` if given: [R, D] -> [R, E]."""
        out = x.new_empty(len(x), len(self.weight)) if out is None else out
        parts = max(-(-len(x) // _TOKENS), 1)
        for part, result in zip(x.tensor_split(parts), out.tensor_split(parts), strict=True):
            scale = (
                torch.maximum(part.amax(1, keepdim=True), -part.amin(1, keepdim=True)).clamp_(min=1e-12) / 127
            )  # [r, 1]
            rounded = (part / scale).round_().to(torch.int8)  # [r, D]
            torch.mul(torch._int_mm(rounded, self.weight.T), scale, out=result)  # [r, E]
            torch.addcmul(self.bias, result, self.scale, out=result)
        return out


@cache
def weight_limit() -> int:
    """Return the largest rounded weight with which this processor multiplies exactly: 127, or 63 without VNNI instructions."""
    largest = torch.full((256, 256), 127, dtype=torch.int8)
    return 127 if bool((torch._int_mm(largest, largest) == 127 * 127 * 256).all()) else 63
