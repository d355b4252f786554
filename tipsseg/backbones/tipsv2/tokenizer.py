"""Convert text to token ids with the model's own SentencePiece file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from tipsseg.backbones.tipsv2.config import reading
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
