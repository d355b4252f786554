"""The text tower of TIPSv2: a pre-norm transformer with ReLU MLPs and masked mean pooling, and its tokenizer.

The tokenizer is the model's own SentencePiece file.

Shapes: P texts, T tokens, D width. Module and parameter names follow the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.config import TextConfig, reading
from tipsseg.errors import CheckpointError
from tipsseg.util.files import read_regular


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Padded token ids.

    Attributes:
        ids: [P, max_length] int64, zero-padded.
        lengths: [P] int64, the number of real tokens per text.
    """

    ids: Tensor
    lengths: Tensor


class Tokenizer:
    """Lower-cases each text, splits it into pieces without BOS or EOS, truncates it, and pads it with zeros.

    The published tokenizer drops the padding mask of a whole batch if one of its texts is too long; here the texts of a batch are
    independent. Lower-casing follows Unicode, as in transformers; the authors' code lower-cases only the letters A to Z.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        """Read a SentencePiece model with pad id 0. Raise CheckpointError if the file is not one."""
        self.path = path
        self.max_length = max_length
        # Pass bytes rather than a path: SentencePiece opens only paths in UTF-8.
        with reading(path):
            content = read_regular(path)
        try:
            self._pieces = SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise CheckpointError(path, "is not a SentencePiece model") from error
        self.vocab_size: int = self._pieces.get_piece_size()
        if self.vocab_size == 0:
            raise CheckpointError(path, "is an empty SentencePiece model")

    def encode(self, text: str) -> list[int]:
        """Return the first `max_length` token ids of a text."""
        ids: list[int] = self._pieces.encode(text.lower())
        return ids[: self.max_length]

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Return the token ids of several texts, padded to `max_length`."""
        rows = [self.encode(text) for text in texts]
        ids = torch.zeros(len(rows), self.max_length, dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return Tokens(ids, torch.tensor([len(row) for row in rows], dtype=torch.int64))


class TextAttention(nn.Module):
    """Multi-head self-attention. In the checkpoint the fused projection is a pair of parameters, not a module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """[P, T, D] -> [P, T, D]; `visible` [P, 1, 1, T] bool is True for tokens that may be attended to."""
        batch, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # [P, T, 3 D]
        qkv = qkv.view(batch, tokens, 3, self.heads, width // self.heads)  # [P, T, 3, heads, d]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [P, heads, T, d]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)  # [P, heads, T, d]
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # [P, T, D]


class TextMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[P, T, D] -> [P, T, D]."""
        return self.c_proj(F.relu(self.c_fc(x)))


class TextBlock(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.ln_1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = TextAttention(width, config.num_attention_heads)
        self.ln_2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = TextMlp(width, config.intermediate_size)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """[P, T, D] -> [P, T, D]."""
        x = x + self.attn(self.ln_1(x), visible)
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Stack of blocks, a module of its own because the checkpoint's names require it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """[P, T, D] -> [P, T, D]."""
        for block in self.resblocks:
            x = block(x, visible)
        return x


class TextTower(nn.Module):
    """Text tower: maps token ids to one vector per text."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        embedding = torch.empty(config.vocab_size, config.hidden_size)
        if not embedding.is_meta:  # for a meta tensor, torch would spend a second on imports and initialise nothing
            nn.init.normal_(embedding)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size, _weight=embedding)
        self.transformer = TextTransformer(config)
        self.ln_final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean of the real tokens after the final norm, not of unit length: [P, T] int64, [P] int64 -> [P, D].

        Tokens beyond a text's length are padding: they are neither attended to nor averaged. A text of length 0 (the empty string)
        yields the zero vector.
        """
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]  # [P, T]
        # A text without tokens attends to its padding, which is not averaged: a softmax over nothing would be NaN.
        visible = real | (lengths == 0)[:, None]  # [P, T]
        width = self.config.hidden_size
        x = self.token_embedding(ids) * math.sqrt(width)  # [P, T, D]
        x = x + sinusoidal_positions(ids.shape[1], width, x.device).to(x.dtype)
        x = self.ln_final(self.transformer(x, visible[:, None, None, :]))  # [P, T, D]
        weights = real.to(x.dtype)
        return (x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)  # [P, D]


def sinusoidal_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Return position embeddings, sines in the first half of the channels and cosines in the second: [length, width].

    The time scales range from 1 to 10,000.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, device=device, dtype=torch.float32) * -(math.log(10_000) / max(half - 1, 1)))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates  # [length, half]
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))  # [length, width]
