"""Read a TIPSv2 model from a folder in the hub layout. Reject missing or unknown tensors and wrong shapes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.config import ModelConfig, reading
from tipsseg.backbones.tipsv2.headers import read_headers
from tipsseg.backbones.tipsv2.text import TextTower, Tokenizer
from tipsseg.backbones.tipsv2.vision import VisionTower
from tipsseg.errors import CheckpointError
from tipsseg.weights.lock import TOKENIZER_FILE


class Tipsv2(nn.Module):
    """Both towers, named as in the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = VisionTower(config.vision)
        self.text_encoder = TextTower(config.text)


class Checkpoint:
    """A model in a folder. Everything except the tensors is read and checked immediately; each tower is read on request.

    Attributes:
        config: The configuration in config.json, with the learned temperature.
        tokenizer: The tokenizer of the text tower.
    """

    def __init__(self, folder: Path) -> None:
        """Check config.json, tokenizer.model, and the header of model.safetensors.

        Raise CheckpointError if a file is missing or invalid; it names the file and the first faulty tensor.
        """
        self.config, self._header = read_headers(folder)
        self.tokenizer = Tokenizer(folder / TOKENIZER_FILE, self.config.text.max_position_embeddings)
        if self.tokenizer.vocab_size > self.config.text.vocab_size:
            raise CheckpointError(
                self.tokenizer.path,
                f"has {self.tokenizer.vocab_size} pieces, but config.json states {self.config.text.vocab_size}",
                "Use all three files from one revision of one model.",
            )
        # The meta device allocates and initialises nothing: the file's tensors become the parameters.
        with torch.device("meta"):
            self._model = Tipsv2(self.config)
        expected = {name: tuple(tensor.shape) for name, tensor in self._model.state_dict().items()}
        self._header.check(expected)
        for name, (source, *_) in self._header.sources.items():
            if name not in expected:
                raise self._header.error(source, "is not part of the model that config.json describes")

    def read_vision(self, device: torch.device, dtype: torch.dtype) -> VisionTower:
        """Load the vision tower onto a device, in evaluation mode and without gradients."""
        self._fill("vision_encoder", self._model.vision_encoder, device, dtype)
        return self._model.vision_encoder

    def read_text(self, device: torch.device, dtype: torch.dtype) -> TextTower:
        """Load the text tower onto a device, in evaluation mode and without gradients."""
        self._fill("text_encoder", self._model.text_encoder, device, dtype)
        return self._model.text_encoder

    def read(self, device: torch.device, dtype: torch.dtype) -> Tipsv2:
        self.read_vision(device, dtype)
        self.read_text(device, dtype)
        return self._model.eval()

    def _fill(self, prefix: str, tower: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """Copy tensors one by one from the memory-mapped file to the device, converting them to `dtype`."""
        path, sources = self._header.path, self._header.sources
        tensors: dict[str, Tensor] = {}
        with reading(path), safe_open(path, framework="pt", device="cpu") as file:
            for name in tower.state_dict():
                parts = [file.get_tensor(source) for source in sources[f"{prefix}.{name}"]]
                tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
                tensors[name] = tensor.to(device=device, dtype=dtype)
        tower.load_state_dict(tensors, strict=True, assign=True)
        tower.eval().requires_grad_(False)


def load_tipsv2(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Tipsv2, Tokenizer]:
    """Load both towers and the tokenizer from a model folder (see `Checkpoint`)."""
    checkpoint = Checkpoint(folder)
    return checkpoint.read(device, dtype), checkpoint.tokenizer
