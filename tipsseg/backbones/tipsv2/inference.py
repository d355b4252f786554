"""The vision tower without gradients, in memory that is used again: what `Tipsv2Backbone` runs.

The sums are those of `VisionTower.value_features` and `VisionTower.forward`, which stay the definition. There every layer makes
new tensors: 10 MB each for a window of B/14, which a CPU's allocator hands back to the system and asks for again, page by page.
Here hidden layers are written over those of the block before, and residuals are added in place. Measured with
`tests/benchmarks/encoder.py` on 2 cores of an Intel Xeon, B/14 in float32: 0.90 of the time.

Where a CPU has more threads than an image has windows, workers share the windows. All that is done to a token between two
attentions needs no other token: a worker takes some tokens through all of that. Of an attention it takes some heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tipsseg.backbones.devices import multiplies_bfloat16
from tipsseg.backbones.tipsv2.vision import Attention, Block, Mlp, VisionTower
from tipsseg.backbones.workers import Workers

Item = TypeVar("Item")

#: A worker takes at least so many tokens at a time; of fewer, products take longer in all.
_TOKENS = 256

#: At most so many workers share windows, and each has its part of torch's threads. More were not measured.
_WORKERS = 4

#: Windows are shared in these dtypes. In float32 that took 1.14 of the time on free cores, and 0.94 beside a busy one.
_SHARED = (torch.bfloat16,)

#: At most so many logits of an attention are in memory at a time: few megabytes, which a processor has nearby.
_LOGITS = 1 << 21


class TowerInference:
    """Compute value features and class tokens of a tower. Several threads may call it at once."""

    def __init__(self, tower: VisionTower, workers: Workers | None = None) -> None:
        """Take no memory yet.

        Args:
            tower: In evaluation mode.
            workers: On a CPU they share what is to be computed, unless one of them is the caller. A call ends where their `check`
                raises. None: the caller computes alone.
        """
        self._tower = tower
        self._workers = workers
        self._rooms: list[_Room] = []  # as many as there were calls at once; those that no call uses
        self._positions = lru_cache(maxsize=4)(tower.patch_positions)  # MPS waits for these

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
        self._rooms.clear()
        self._positions.cache_clear()

    def _encode(self, pixels: Tensor, room: _Room) -> tuple[Tensor, Tensor]:
        tower = self._tower
        tokens = tower.embed(pixels, positions=self._positions(*tower.grid_of(pixels)))  # [B, N, D]
        batch, _, width = tokens.shape
        x = tokens.reshape(-1, width)  # [B * N, D]
        *blocks, last = (cast(Block, block) for block in tower.blocks)
        sharing = _Sharing(self._workers, x)
        room.reserve(x, last)
        _through(blocks, x, batch, room, sharing)
        prefix = tower.config.num_prefix_tokens
        x, normed = x.view(batch, -1, width), last.norm1(x).view(batch, -1, width)  # each [B, N, D]
        first = x[:, :prefix].reshape(-1, width)  # [B * C, D]
        first.addcmul_(_attention_of_first(last.attn, normed, prefix), last.ls1.gamma)
        first.addcmul_(_mlp(room, last, first), last.ls2.gamma)
        x, normed = (tokens[:, prefix:].reshape(-1, width) for tokens in (x, normed))  # each [B * h * w, D]

        def finish(rows: slice) -> None:
            part = x[rows]
            part.addcmul_(_values(room, last.attn, normed[rows], rows.start), last.ls1.gamma)
            part.addcmul_(_mlp(room, last, part, rows.start), last.ls2.gamma)

        sharing.each(finish, sharing.parts(len(x)))
        patches = tower.to_grid(tower.norm(x).view(batch, -1, width), pixels)
        return patches, tower.norm(first).view(batch, prefix, width)


class _Sharing:
    """Divide the work of a call between workers. The division follows from the numbers of threads and tokens, and the dtype."""

    def __init__(self, workers: Workers | None, x: Tensor) -> None:
        """`x` is [B * N, D]."""
        self._workers = workers
        self.workers = 1
        if workers is not None and x.device.type == "cpu" and x.dtype in _SHARED:
            self.workers = max(min(workers.count, _WORKERS, len(x) // _TOKENS), 1)

    def parts(self, rows: int) -> list[slice]:
        """Divide the rows into parts, as many for each worker; a single worker takes all at once."""
        number = self.workers * max(rows // (self.workers * _TOKENS), 1) if self.workers > 1 else 1
        step = -(-rows // number)
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def each(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Do work for all items. Raises StoppedError, see `Workers.check`."""
        if self._workers is not None:
            self._workers.check()
        if self._workers is None or self.workers == 1:
            for item in items:
                work(item)
        else:
            self._workers.map(torch.inference_mode()(work), items, self.workers)


def _through(blocks: Sequence[Block], x: Tensor, batch: int, room: _Room, sharing: _Sharing) -> None:
    """Take the tokens of B images through blocks, [B * N, D] in place."""
    width = x.shape[1]
    qkv = room.rows("qkv", 0, len(x), 3 * width)

    def project(block: Block, rows: slice) -> None:
        room.apply("qkv", block.attn.qkv, block.norm1(x[rows]), rows.start)

    def finish(block: Block, following: Block | None, attended: Tensor, rows: slice) -> None:
        part = x[rows]
        part.addcmul_(room.apply("out", block.attn.proj, attended[rows], rows.start), block.ls1.gamma)
        part.addcmul_(_mlp(room, block, part, rows.start), block.ls2.gamma)
        if following is not None:
            project(following, rows)

    by_products = x.device.type == "cpu" and x.dtype == torch.bfloat16 and multiplies_bfloat16()
    parts = sharing.parts(len(x))
    for block in blocks[:1]:
        sharing.each(partial(project, block), parts)
    for block, following in zip_longest(blocks, blocks[1:]):
        heads = qkv.view(batch, -1, 3, block.attn.heads, width // block.attn.heads)  # [B, N, 3, heads, d]
        attended = _attended(heads, sharing, by_products)
        sharing.each(partial(finish, block, following, attended.view(x.shape)), parts)


def _attended(qkv: Tensor, sharing: _Sharing, by_products: bool) -> Tensor:
    """Compute the attention of B images, by `_products` or as torch makes it: [B, N, 3, heads, d] -> [B, N, heads, d]."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, d]
    if sharing.workers == 1 and not by_products:
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous()
    attended = qkv.new_empty(qkv[:, :, 0].shape)

    def attend(place: tuple[int, int]) -> None:
        one = query[place], key[place], value[place]  # each [N, d]
        attended[place[0], :, place[1]] = _products(*one) if by_products else F.scaled_dot_product_attention(*one)

    sharing.each(attend, [(image, head) for image in range(len(qkv)) for head in range(qkv.shape[3])])
    return attended


def _products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute the attention of one head by matrix products, each [N, d] -> [N, d]; logits are rounded."""
    bias, scale = query.new_zeros(()), query.shape[1] ** -0.5
    parts = [
        torch.addmm(bias, some, key.T, beta=0, alpha=scale).softmax(-1) @ value  # [n, d]
        for some in query.split(max(_LOGITS // len(key), 1))
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Room:
    """Memory for the outputs of linear layers, for one call at a time."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def reserve(self, x: Tensor, block: Block) -> None:
        """Have memory for all tokens of a call, [B * N, D], in blocks like this one."""
        rows, width = x.shape
        mlp = block.mlp
        hidden = len(mlp.fc1.weight) if isinstance(mlp, Mlp) else len(mlp.w12.weight)
        for name, columns in (("qkv", 3 * width), ("hidden", hidden), ("out", width)):
            memory = self._tensors.get(name)
            if memory is None or memory.numel() < rows * columns:
                self._tensors[name] = x.new_empty(rows * columns)

    def rows(self, name: str, start: int, count: int, width: int) -> Tensor:
        """Return the rows from `start` on of the memory of that name, [count, width]."""
        return self._tensors[name][start * width : (start + count) * width].view(count, width)

    def apply(self, name: str, layer: nn.Linear, x: Tensor, start: int = 0) -> Tensor:
        return self.linear(name, x, layer.weight, layer.bias, start)

    def linear(self, name: str, x: Tensor, weight: Tensor, bias: Tensor, start: int = 0) -> Tensor:
        """Apply a linear layer, and write over the rows of the memory of that name from `start` on: [R, D] -> [R, E]."""
        return torch.addmm(bias, x, weight.T, out=self.rows(name, start, len(x), len(weight)))


def _values(room: _Room, attention: Attention, x: Tensor, start: int) -> Tensor:
    """`Attention.values`: [R, D] -> [R, D]."""
    width = x.shape[1]
    weight, bias = attention.qkv.weight[2 * width :], attention.qkv.bias[2 * width :]
    return room.apply("out", attention.proj, room.linear("qkv", x, weight, bias, start), start)


def _mlp(room: _Room, block: Block, x: Tensor, start: int = 0) -> Tensor:
    """The MLP of a block after its norm: [R, D] -> [R, D]."""
    mlp, x = block.mlp, block.norm2(x)
    if isinstance(mlp, Mlp):
        return room.apply("out", mlp.fc2, torch.ops.aten.gelu_(room.apply("hidden", mlp.fc1, x, start)), start)
    gate, up = room.apply("hidden", mlp.w12, x, start).chunk(2, dim=1)  # each [R, hidden]
    return room.apply("out", mlp.w3, F.silu(gate, inplace=True).mul_(up), start)


def _attention_of_first(attention: Attention, x: Tensor, count: int) -> Tensor:
    """Compute `Attention.forward` of the first C tokens alone, which look at all: [B, N, D] -> [B * C, D].

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
