"""Value features without gradients, in memory that is used again: what `Encoder` runs.

The sums are those of `VisionTower.value_features`, which stays the definition. There every layer makes tensors anew: 10 MB each for
a window of B/14, which a CPU's allocator hands back to the system and asks for again, page by page. Here hidden layers are written
over those of the block before, and residuals are added in place. Measured with `tests/benchmarks/encoder.py` on 2 cores, B/14 in
float32: 0.90 of the time.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.vision import Attention, Block, Mlp, VisionTower


class ValueFeatures:
    """The value features of a tower. Not for several threads at once: they would share the memory."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower
        self._room: dict[str, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Value features of the patches, [B, 3, H, W] -> [B, h, w, D]; see `VisionTower.value_features`."""
        tower = self._tower
        tokens = tower.embed(pixels)  # [B, N, D]
        batch, _, width = tokens.shape
        x = tokens.reshape(-1, width)  # [B * N, D]
        *blocks, last = (cast(Block, block) for block in tower.blocks)
        for block in blocks:
            x.addcmul_(self._attention(block.attn, block.norm1(x), batch), block.ls1.gamma)
            x.addcmul_(self._mlp(block, x), block.ls2.gamma)
        x = x.view(batch, -1, width)[:, tower.config.num_prefix_tokens :].reshape(-1, width)  # [B * h * w, D]
        x.addcmul_(self._values(last.attn, last.norm1(x)), last.ls1.gamma)
        x.addcmul_(self._mlp(last, x), last.ls2.gamma)
        return tower.to_grid(tower.norm(x).view(batch, -1, width), pixels)

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
