"""Define the vision tower of TIPSv2: a pre-norm ViT with LayerScale, two class tokens, and value features.

Shapes: B images, N = 1 + registers + h * w tokens, D width. Token order is [CLS1, CLS2 (the "register"), patches...], so
patches start at index 2. Input pixels are RGB in [0, 1]; there is no mean/std normalisation.

Module and parameter names match the checkpoint, so its state dict loads without renaming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.config import VisionConfig

#: A GPU multiplies fast if rows hold a multiple of this many values; a patch of 14 x 14 pixels has 588.
_ALIGNED = 8


@dataclass(frozen=True, slots=True, eq=False)
class VisionOutput:
    """Normalised output of the last block.

    Attributes:
        cls: [B, D], first class token, aligned with web alt-texts.
        registers: [B, R, D], second class token, aligned with synthetic captions.
        patches: [B, h, w, D], patch tokens.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor


class PatchEmbed(nn.Module):
    """Linear embedding of non-overlapping patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, h * w, D]."""
        if pixels.device.type == "cpu":
            return self.proj(pixels).flatten(2).transpose(1, 2)  # [B, h * w, D]
        # A convolution may round its inputs to 10 bits on CUDA, which changes cosines by up to 0.005.
        weight = self.proj.weight.flatten(1)  # [D, 3 * patch * patch]
        padding = (0, -weight.shape[1] % _ALIGNED)
        values = F.pixel_unshuffle(pixels, self.proj.stride[0]).flatten(2)  # [B, 3 * patch * patch, h * w]
        return F.linear(F.pad(values.transpose(1, 2), padding), F.pad(weight, padding), self.proj.bias)  # [B, h * w, D]


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)  # [B, N, 3, heads, d]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, d]
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, heads, N, d]
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # [B, N, D]

    def values(self, x: Tensor) -> Tensor:
        """Return the projected values, without attention: [B, N, D] -> [B, N, D]."""
        width = x.shape[-1]
        value = F.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :])  # [B, N, D]
        return self.proj(value)


class Mlp(nn.Module):
    """MLP of two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """Gated MLP, w3(silu(a) * b) with [a, b] = w12(x), used by g/14."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        gate, up = self.w12(x).chunk(2, dim=-1)  # each [B, N, hidden]
        return self.w3(F.silu(gate) * up)


class LayerScale(nn.Module):
    """Learned gain per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, hidden = config.hidden_size, config.mlp_hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = Attention(width, config.num_attention_heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp: Mlp | SwiGlu = SwiGlu(width, hidden) if config.use_swiglu_ffn else Mlp(width, hidden)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self._feed_forward(x + self.ls1(self.attn(self.norm1(x))))

    def value_features(self, x: Tensor) -> Tensor:
        """Apply the block with its attention weights replaced by the identity: every token keeps its own value."""
        return self._feed_forward(x + self.ls1(self.attn.values(self.norm1(x))))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTower(nn.Module):
    """Vision tower. `forward` returns the standard output, `value_features` the features for dense matching."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid_size**2, width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> VisionOutput:
        """Return the normalised tokens after the last block.

        Args:
            pixels: [B, 3, H, W] float in [0, 1], RGB; H and W are multiples of the patch size.
            mask: [B, h * w] bool, True if the mask token replaces a patch; only for training.
        """
        return self.output_of(self.last_block_input(pixels, mask), pixels)

    def output_of(self, hidden: Tensor, pixels: Tensor) -> VisionOutput:
        """Apply the last block to its input, [B, N, D], and return the normalised tokens."""
        tokens = self.norm(self.blocks[-1](hidden))  # [B, N, D]
        prefix = self.config.num_prefix_tokens
        return VisionOutput(tokens[:, 0], tokens[:, 1:prefix], self.to_grid(tokens[:, prefix:], pixels))

    def value_features(self, pixels: Tensor) -> Tensor:
        """Return value features of the patches, [B, 3, H, W] -> [B, h, w, D].

        The last block replaces the attention output of every token by its value `v`, and continues with its MLP and the final norm
        (the zero-shot segmentation protocol of TIPSv2, arXiv 2604.12012). Without attention the prefix tokens do not affect the
        patches, so they are dropped before this block.
        """
        return self.values_of(self.last_block_input(pixels), pixels)

    def values_of(self, hidden: Tensor, pixels: Tensor) -> Tensor:
        """Apply the last block without attention to its input, [B, N, D], and return value features [B, h, w, D]."""
        last = cast(Block, self.blocks[-1])
        return self.to_grid(self.norm(last.value_features(hidden[:, self.config.num_prefix_tokens :])), pixels)

    def last_block_input(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the input of the last block, [B, N, D], which `forward` and `value_features` share."""
        x = self.embed(pixels, mask)
        for block in self.blocks[:-1]:
            x = block(x)
        return x

    def embed(self, pixels: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Return the input tokens of the first block, [B, 3, H, W] -> [B, N, D]; see `forward`.

        `positions` is the result of `patch_positions`, if already computed.
        """
        batch = pixels.shape[0]
        patches = self.patch_embed(pixels)  # [B, h * w, D]
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token, patches)
        patches = patches + (self.patch_positions(*self.grid_of(pixels)) if positions is None else positions)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        # The register has no position embedding.
        return torch.cat([cls, self.register_tokens.expand(batch, -1, -1), patches], dim=1)  # [B, N, D]

    def patch_positions(self, height: int, width: int) -> Tensor:
        """Return the position embeddings of a grid of height x width patches, [1, height * width, D]."""
        side = self.config.grid_size
        positions = self.pos_embed[:, 1:]  # [1, side * side, D]
        if (height, width) == (side, side):
            return positions
        grid = positions.view(1, side, side, -1).permute(0, 3, 1, 2)  # [1, D, side, side]
        grid = _interpolate_antialias(grid, height, width)  # [1, D, height, width]
        return grid.flatten(2).transpose(1, 2)  # [1, height * width, D]

    def grid_of(self, pixels: Tensor) -> tuple[int, int]:
        patch = self.config.patch_size
        return pixels.shape[-2] // patch, pixels.shape[-1] // patch

    def to_grid(self, patches: Tensor, pixels: Tensor) -> Tensor:
        """Arrange patch tokens in rows and columns, [B, h * w, D] -> [B, h, w, D]."""
        height, width = self.grid_of(pixels)
        return patches.reshape(patches.shape[0], height, width, -1)  # [B, h, w, D]


def _interpolate_antialias(grid: Tensor, height: int, width: int) -> Tensor:
    # Always in float32, like the reference implementation. MPS has no antialiased kernel before torch 2.7.
    device = torch.device("cpu") if grid.device.type == "mps" else grid.device
    resized = F.interpolate(
        grid.to(device=device, dtype=torch.float32),
        size=(height, width),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return resized.to(device=grid.device, dtype=grid.dtype)
