"""The vision tower without gradients, in memory that is used again: what `Tipsv2Backbone` runs.

The sums are those of `VisionTower.value_features` and `VisionTower.forward`, which stay the definition. There every layer makes
tensors anew: 10 MB each for a window of B/14, which a CPU's allocator hands back to the system and asks for again, page by page.
Here hidden layers are written over those of the block before, and residuals are added in place. Measured with
`tests/benchmarks/encoder.py` on 2 cores, B/14 in float32: 0.90 of the time.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.vision import Attention, Block, Mlp, VisionTower


class TowerInference:
    """Value features and class tokens of a tower. Not for several threads at once: they would share the memory."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower
        self._room: dict[str, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        Args:
            pixels: [B, 3, H, W] in [0, 1], H and W multiples of the patch size.

        Returns:
            The value features of the patches, [B, h, w, D], see `VisionTower.value_features`; and class token and registers after
            the last block, [B, C, D], see `VisionTower.forward`.
        """
        tower = self._tower
        tokens = tower.embed(pixels)  # [B, N, D]
        batch, _, width = tokens.shape
        x = tokens.reshape(-1, width)  # [B * N, D]
        *blocks, last = (cast(Block, block) for block in tower.blocks)
        for block in blocks:
            x.addcmul_(self._attention(block.attn, block.norm1(x), batch), block.ls1.gamma)
            x.addcmul_(self._mlp(block, x), block.ls2.gamma)
        prefix = tower.config.num_prefix_tokens
        x, normed = x.view(batch, -1, width), last.norm1(x).view(batch, -1, width)  # each [B, N, D]
        first = x[:, :prefix].reshape(-1, width)  # [B * C, D]
        first.addcmul_(_attention_of_first(last.attn, normed, prefix), last.ls1.gamma)
        first.addcmul_(self._mlp(last, first), last.ls2.gamma)
        x, normed = (each[:, prefix:].reshape(-1, width) for each in (x, normed))  # each [B * h * w, D]
        x.addcmul_(self._values(last.attn, normed), last.ls1.gamma)
        x.addcmul_(self._mlp(last, x), last.ls2.gamma)
        patches = tower.to_grid(tower.norm(x).view(batch, -1, width), pixels)
        return patches, tower.norm(first).view(batch, prefix, width)

    def forget(self) -> None:
        """Give the memory back."""
        self._room.clear()

    def _attention(self, attention: Attention, x: Tensor, batch: int) -> Tensor:
        """`Attention.forward` of B images: [B * N, D] -> [B * N, D]."""
        rows, width = x.shape
        heads = (batch, rows // batch, 3, attention.heads, width // attention.heads)
        qkv = self._linear("hidden", x, attention.qkv.weight, attention.qkv.bias).view(heads)  # [B, N, 3, heads, d]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, d]
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)  # [B, N, heads, d]
        return self._apply("out", attention.proj, mixed.reshape(rows, width))

    def _values(self, attention: Attention, x: Tensor) -> Tensor:
        """`Attention.values`: [R, D] -> [R, D]."""
        width = x.shape[1]
        weight, bias = attention.qkv.weight[2 * width :], attention.qkv.bias[2 * width :]
        return self._apply("out", attention.proj, self._linear("hidden", x, weight, bias))

    def _mlp(self, block: Block, x: Tensor) -> Tensor:
        """The MLP of a block after its norm: [R, D] -> [R, D]."""
        mlp, x = block.mlp, block.norm2(x)
        if isinstance(mlp, Mlp):
            return self._apply("out", mlp.fc2, torch.ops.aten.gelu_(self._apply("hidden", mlp.fc1, x)))
        gate, up = self._apply("hidden", mlp.w12, x).chunk(2, dim=1)  # each [R, hidden]
        return self._apply("out", mlp.w3, F.silu(gate, inplace=True).mul_(up))

    def _apply(self, name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        return self._linear(name, x, layer.weight, layer.bias)

    def _linear(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A linear layer into the room of that name, over what was there: [R, D] -> [R, E]."""
        rows, width = len(x), len(weight)
        room = self._room.get(name)
        if room is None or room.numel() < rows * width:
            room = self._room[name] = x.new_empty(rows * width)
        return torch.addmm(bias, x, weight.T, out=room[: rows * width].view(rows, width))


def _attention_of_first(attention: Attention, x: Tensor, count: int) -> Tensor:
    """`Attention.forward` of the first C tokens alone, which look at all: [B, N, D] -> [B * C, D].

    Keys and values of all N tokens would be a sixth of the work of a block. But q . (W x) = (q W) . x, and the mean of W x is W
    times the mean of x: queries are brought to the tokens, and no token needs a key or a value. The bias of keys adds the same to
    all logits of a query, and falls out of the softmax.
    """
    batch, _, width = x.shape
    heads = attention.heads
    query, key, value = (part.view(heads, -1, width) for part in attention.qkv.weight.chunk(3))  # each [heads, d, D]
    query_bias, _, value_bias = attention.qkv.bias.view(3, heads, 1, -1)  # each [heads, 1, d]
    first = x[:, None, :count] @ query.transpose(1, 2) + query_bias  # [B, heads, C, d]
    looks = first @ key * first.shape[-1] ** -0.5  # [B, heads, C, D]
    weights = (looks.flatten(1, 2) @ x.transpose(1, 2)).softmax(-1)  # [B, heads * C, N]
    mixed = (weights @ x).view(looks.shape) @ value.transpose(1, 2) + value_bias  # [B, heads, C, d]
    return attention.proj(mixed.transpose(1, 2).reshape(batch * count, width))
