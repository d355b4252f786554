"""The vision tower without gradients, in memory that is used again: what `Tipsv2Backbone` runs.

The sums are those of `VisionTower.value_features` and `VisionTower.forward`, which stay the definition. There every layer makes
new tensors: 10 MB each for a window of B/14, which a CPU's allocator hands back to the system and asks for again, page by page.
Here hidden layers are written over those of the block before, and residuals are added in place. Measured with
`tests/benchmarks/encoder.py` on 2 cores of an Intel Xeon, B/14 in float32: 0.90 of the time. Linear layers with weights that
oneDNN packed beforehand were slower than these, on one thread of an AMD EPYC in float32: 1.09 to 1.23 of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.vision import Attention, Block, Mlp, VisionTower


class TowerInference:
    """Value features and class tokens of a tower. Several threads may call it at once."""

    def __init__(self, tower: VisionTower, check: Callable[[], None] = lambda: None) -> None:
        """Take no memory yet.

        Args:
            tower: In evaluation mode.
            check: Called before each block; it may raise, which ends the call.
        """
        self._tower = tower
        self._check = check
        self._rooms: list[_Room] = []  # as many as there were calls at once; those that no call uses

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        Args:
            pixels: [B, 3, H, W] in [0, 1], H and W multiples of the patch size.

        Returns:
            The value features of the patches, [B, h, w, D], see `VisionTower.value_features`; and class token and registers after
            the last block, [B, C, D], see `VisionTower.forward`.
        """
        try:
            room = self._rooms.pop()
        except IndexError:
            room = _Room()
        encoded = self._encode(pixels, room)
        self._rooms.append(room)
        return encoded

    def forget(self) -> None:
        """Give the memory back."""
        self._rooms.clear()

    def _encode(self, pixels: Tensor, room: _Room) -> tuple[Tensor, Tensor]:
        tower = self._tower
        tokens = tower.embed(pixels)  # [B, N, D]
        batch, _, width = tokens.shape
        x = tokens.reshape(-1, width)  # [B * N, D]
        *blocks, last = (cast(Block, block) for block in tower.blocks)
        for block in blocks:
            self._check()
            x.addcmul_(_attention(room, block.attn, block.norm1(x), batch), block.ls1.gamma)
            x.addcmul_(_mlp(room, block, x), block.ls2.gamma)
        prefix = tower.config.num_prefix_tokens
        x, normed = x.view(batch, -1, width), last.norm1(x).view(batch, -1, width)  # each [B, N, D]
        first = x[:, :prefix].reshape(-1, width)  # [B * C, D]
        first.addcmul_(_attention_of_first(last.attn, normed, prefix), last.ls1.gamma)
        first.addcmul_(_mlp(room, last, first), last.ls2.gamma)
        x, normed = (each[:, prefix:].reshape(-1, width) for each in (x, normed))  # each [B * h * w, D]
        x.addcmul_(_values(room, last.attn, normed), last.ls1.gamma)
        x.addcmul_(_mlp(room, last, x), last.ls2.gamma)
        patches = tower.to_grid(tower.norm(x).view(batch, -1, width), pixels)
        return patches, tower.norm(first).view(batch, prefix, width)


class _Room:
    """Memory for the outputs of linear layers, for one call at a time."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def apply(self, name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        """See `linear`."""
        return self.linear(name, x, layer.weight, layer.bias)

    def linear(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A linear layer into the memory of that name, over what was there: [R, D] -> [R, E]."""
        rows, width = len(x), len(weight)
        memory = self._tensors.get(name)
        if memory is None or memory.numel() < rows * width:
            memory = self._tensors[name] = x.new_empty(rows * width)
        return torch.addmm(bias, x, weight.T, out=memory[: rows * width].view(rows, width))


def _attention(room: _Room, attention: Attention, x: Tensor, batch: int) -> Tensor:
    """`Attention.forward` of B images: [B * N, D] -> [B * N, D]."""
    rows, width = x.shape
    heads = (batch, rows // batch, 3, attention.heads, width // attention.heads)
    qkv = room.apply("hidden", attention.qkv, x).view(heads)  # [B, N, 3, heads, d]
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, d]
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)  # [B, N, heads, d]
    return room.apply("out", attention.proj, mixed.reshape(rows, width))


def _values(room: _Room, attention: Attention, x: Tensor) -> Tensor:
    """`Attention.values`: [R, D] -> [R, D]."""
    width = x.shape[1]
    weight, bias = attention.qkv.weight[2 * width :], attention.qkv.bias[2 * width :]
    return room.apply("out", attention.proj, room.linear("hidden", x, weight, bias))


def _mlp(room: _Room, block: Block, x: Tensor) -> Tensor:
    """The MLP of a block after its norm: [R, D] -> [R, D]."""
    mlp, x = block.mlp, block.norm2(x)
    if isinstance(mlp, Mlp):
        return room.apply("out", mlp.fc2, torch.ops.aten.gelu_(room.apply("hidden", mlp.fc1, x)))
    gate, up = room.apply("hidden", mlp.w12, x).chunk(2, dim=1)  # each [R, hidden]
    return room.apply("out", mlp.w3, F.silu(gate, inplace=True).mul_(up))


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
