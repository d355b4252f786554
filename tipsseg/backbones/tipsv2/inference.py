"""Run the vision tower without gradients, in reused buffers.

`VisionTower.value_features` and `VisionTower.forward` define the computation, but allocate new tensors in every layer: 10 MB
each for a window of B/14, which a CPU's allocator returns to the system and requests again, page by page. Here hidden layers
overwrite the previous block's, and residuals are added in place. On 2 cores of an Intel Xeon, B/14 in float32 takes 0.90
times as long (measured with `tests/benchmarks/encoder.py`).

If a CPU has more threads than an image has windows, workers share a window. Between two attentions tokens are independent, so each
worker processes some of the tokens. Within an attention each worker processes some of the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.devices import bfloat16_instructions
from tipsseg.backbones.tipsv2.int8 import Int8Linear
from tipsseg.backbones.tipsv2.vision import Attention, Block, Mlp, VisionTower
from tipsseg.backbones.workers import Workers

_Item = TypeVar("_Item")

#: Minimum number of tokens per worker at a time; with fewer, the matrix products take longer in total.
_TOKENS = 256

#: Maximum number of workers that share windows, each with its part of torch's threads. More were not measured.
_WORKERS = 4

#: Dtypes in which workers share windows. In float32, sharing took 1.14 times as long on idle cores, and 0.94 times as long
#: beside a busy core.
_SHARED = (torch.bfloat16,)

#: Maximum number of attention logits in memory at a time: a few megabytes, which fit the processor's cache.
_LOGITS = 1 << 21


class TowerInference:
    """Computes a tower's value features and class tokens. Safe to call from several threads."""

    def __init__(self, tower: VisionTower, workers: Workers | None = None) -> None:
        """Wrap a tower. Buffers are allocated by the first call.

        Args:
            tower: A tower in evaluation mode.
            workers: Workers that share the computation on a CPU, unless the caller is one of them. A call stops when their
                `check` raises.
                None: the caller computes alone.
        """
        self._tower = tower
        self._workers = workers
        self._free_buffers: list[_Buffers] = []  # left by finished calls
        self._positions = lru_cache(maxsize=4)(tower.patch_positions)  # computing them makes MPS wait

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        Args:
            pixels: [B, 3, H, W] in [0, 1], H and W multiples of the patch size.

        Returns:
            The value features of the patches, [B, h, w, D] (see `VisionTower.value_features`); and the class token and registers
            after the last block, [B, C, D] (see `VisionTower.forward`).
        """
        try:
            buffers = self._free_buffers.pop()
        except IndexError:
            buffers = _Buffers()
        encoded = self._encode(pixels, buffers)
        self._free_buffers.append(buffers)
        return encoded

    def forget(self) -> None:
        self._free_buffers.clear()
        self._positions.cache_clear()

    def _encode(self, pixels: Tensor, buffers: _Buffers) -> tuple[Tensor, Tensor]:
        tower = self._tower
        tokens = tower.embed(pixels, positions=self._positions(*tower.grid_of(pixels)))  # [B, N, D]
        batch, _, width = tokens.shape
        x = tokens.reshape(-1, width)  # [B * N, D]
        *blocks, last = (cast(Block, block) for block in tower.blocks)
        sharing = _WorkSharing(self._workers, x)
        buffers.reserve(x, last)
        _run_blocks(blocks, x, batch, buffers, sharing)
        prefix = tower.config.num_prefix_tokens
        x, normed = x.view(batch, -1, width), last.norm1(x).view(batch, -1, width)  # each [B, N, D]
        first = x[:, :prefix].reshape(-1, width)  # [B * C, D]
        first.addcmul_(_attend_from_first(last.attn, normed, prefix), last.ls1.gamma)
        first.addcmul_(_mlp(buffers, last, first), last.ls2.gamma)
        x, normed = (tokens[:, prefix:].reshape(-1, width) for tokens in (x, normed))  # each [B * h * w, D]

        def finish(rows: slice) -> None:
            part = x[rows]
            part.addcmul_(_values(buffers, last.attn, normed[rows], rows.start), last.ls1.gamma)
            part.addcmul_(_mlp(buffers, last, part, rows.start), last.ls2.gamma)

        sharing.run(finish, sharing.parts(len(x)))
        patches = tower.to_grid(tower.norm(x).view(batch, -1, width), pixels)
        return patches, tower.norm(first).view(batch, prefix, width)


class _WorkSharing:
    """Divides a call's work between workers. The division depends only on the numbers of threads and tokens, and the dtype."""

    def __init__(self, workers: Workers | None, x: Tensor) -> None:
        """`x` is [B * N, D]."""
        self._workers = workers
        self.workers = 1
        if workers is not None and x.device.type == "cpu" and x.dtype in _SHARED:
            self.workers = max(min(workers.count, _WORKERS, len(x) // _TOKENS), 1)

    def parts(self, rows: int) -> list[slice]:
        """Divide the rows into parts, the same number for each worker; a single worker gets all rows in one part."""
        number = self.workers * max(rows // (self.workers * _TOKENS), 1) if self.workers > 1 else 1
        step = -(-rows // number)
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def run(self, work: Callable[[_Item], None], items: Sequence[_Item]) -> None:
        """Call `work` with each item. Raise StoppedError (see `Workers.check`)."""
        if self._workers is not None:
            self._workers.check()
        if self._workers is None or self.workers == 1:
            for item in items:
                work(item)
        else:
            self._workers.map(torch.inference_mode()(work), items, self.workers)


def _run_blocks(blocks: Sequence[Block], x: Tensor, batch: int, buffers: _Buffers, sharing: _WorkSharing) -> None:
    """Apply blocks in place to the tokens of B images, [B * N, D]."""
    width = x.shape[1]
    qkv = buffers.rows("qkv", 0, len(x), 3 * width)

    def project(block: Block, rows: slice) -> None:
        buffers.apply("qkv", block.attn.qkv, block.norm1(x[rows]), rows.start)

    def finish(block: Block, following: Block | None, attended: Tensor, rows: slice) -> None:
        part = x[rows]
        part.addcmul_(buffers.apply("out", block.attn.proj, attended[rows], rows.start), block.ls1.gamma)
        part.addcmul_(_mlp(buffers, block, part, rows.start), block.ls2.gamma)
        if following is not None:
            project(following, rows)

    # On AMD EPYCs with AVX512_BF16, torch's attention in bfloat16 is slower than two products and a softmax.
    by_products = x.device.type == "cpu" and x.dtype == torch.bfloat16 and bfloat16_instructions() == "AVX512_BF16"
    parts = sharing.parts(len(x))
    for block in blocks[:1]:
        sharing.run(partial(project, block), parts)
    for block, following in zip_longest(blocks, blocks[1:]):
        heads = qkv.view(batch, -1, 3, block.attn.heads, width // block.attn.heads)  # [B, N, 3, heads, d]
        attended = _attend(heads, sharing, by_products)
        sharing.run(partial(finish, block, following, attended.view(x.shape)), parts)


def _attend(qkv: Tensor, sharing: _WorkSharing, by_products: bool) -> Tensor:
    """Compute the attention of B images, by matrix products or by torch's kernel: [B, N, 3, heads, d] -> [B, N, heads, d]."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, d]
    if sharing.workers == 1 and not by_products:
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous()
    attended = qkv.new_empty(qkv[:, :, 0].shape)
    attention = _attend_by_products if by_products else F.scaled_dot_product_attention

    def attend(index: tuple[int, int]) -> None:
        image, head = index
        attended[image, :, head] = attention(query[index], key[index], value[index])  # [N, d]

    sharing.run(attend, [(image, head) for image in range(len(qkv)) for head in range(qkv.shape[3])])
    return attended


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute the attention of one head by matrix products, with rounded logits: each [N, d] -> [N, d]."""
    bias, scale = query.new_zeros(()), query.shape[1] ** -0.5
    parts = [
        torch.addmm(bias, part, key.T, beta=0, alpha=scale).softmax(-1) @ value  # [n, d]
        for part in query.split(max(_LOGITS // len(key), 1))
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Buffers:
    """Memory for the outputs of linear layers, used by one call at a time."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def reserve(self, x: Tensor, block: Block) -> None:
        """Allocate memory for all tokens of a call, [B * N, D], in blocks like `block`."""
        rows, width = x.shape
        mlp = block.mlp
        hidden = len(mlp.fc1.weight) if isinstance(mlp, Mlp) else len(mlp.w12.weight)
        for name, columns in (("qkv", 3 * width), ("hidden", hidden), ("out", width)):
            memory = self._tensors.get(name)
            if memory is None or memory.numel() < rows * columns:
                self._tensors[name] = x.new_empty(rows * columns)

    def rows(self, name: str, start: int, count: int, width: int) -> Tensor:
        """Return `count` rows of the named buffer, beginning at `start`: [count, width]."""
        return self._tensors[name][start * width : (start + count) * width].view(count, width)

    def apply(self, name: str, layer: nn.Linear | Int8Linear, x: Tensor, start: int = 0) -> Tensor:
        if isinstance(layer, Int8Linear):
            return layer(x, self.rows(name, start, len(x), len(layer.weight)))
        return self.linear(name, x, layer.weight, layer.bias, start)

    def linear(self, name: str, x: Tensor, weight: Tensor, bias: Tensor, start: int = 0) -> Tensor:
        """Apply a linear layer and write the result to the named buffer, beginning at row `start`: [R, D] -> [R, E]."""
        return torch.addmm(bias, x, weight.T, out=self.rows(name, start, len(x), len(weight)))


def _values(buffers: _Buffers, attention: Attention, x: Tensor, start: int) -> Tensor:
    """Compute `Attention.values` in the buffers: [R, D] -> [R, D]."""
    width = x.shape[1]
    weight, bias = attention.qkv.weight[2 * width :], attention.qkv.bias[2 * width :]
    return buffers.apply("out", attention.proj, buffers.linear("qkv", x, weight, bias, start), start)


def _mlp(buffers: _Buffers, block: Block, x: Tensor, start: int = 0) -> Tensor:
    """Apply the norm and the MLP of a block: [R, D] -> [R, D]."""
    mlp, x = block.mlp, block.norm2(x)
    if isinstance(mlp, Mlp):
        return buffers.apply("out", mlp.fc2, torch.ops.aten.gelu_(buffers.apply("hidden", mlp.fc1, x, start)), start)
    gate, up = buffers.apply("hidden", mlp.w12, x, start).chunk(2, dim=1)  # each [R, hidden]
    return buffers.apply("out", mlp.w3, F.silu(gate, inplace=True).mul_(up), start)


def _attend_from_first(attention: Attention, x: Tensor, count: int) -> Tensor:
    """Compute `Attention.forward` for the first C tokens only, which attend to all tokens: [B, N, D] -> [B * C, D].

    Computing the keys and values of all N tokens would take a sixth of a block's work. But q . (W x) = (q W) . x, and the mean
    of W x is W times the mean of x: with queries projected to the tokens' space, no token needs a key or a value. The key bias
    adds the same number to all logits of a query, so the softmax cancels it.
    """
    batch, _, width = x.shape
    heads = attention.heads
    query, key, value = (part.view(heads, -1, width) for part in attention.qkv.weight.chunk(3))  # each [heads, d, D]
    query_bias, _, value_bias = attention.qkv.bias.view(3, heads, 1, -1)  # each [heads, 1, d]
    first = x[:, None, :count] @ query.transpose(1, 2) + query_bias  # [B, heads, C, d]
    queries = first @ key * first.shape[-1] ** -0.5  # [B, heads, C, D]
    weights = (queries.flatten(1, 2) @ x.transpose(1, 2)).softmax(-1)  # [B, heads * C, N]
    mixed = (weights @ x).view(queries.shape) @ value.transpose(1, 2) + value_bias  # [B, heads, C, d]
    return attention.proj(mixed.transpose(1, 2).reshape(batch * count, width))
