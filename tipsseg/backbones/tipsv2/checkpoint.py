"""Read a TIPSv2 model from a folder in the hub layout. Refuse missing or unknown tensors and wrong shapes.

The numbers in config.json are checked against the header of model.safetensors before a model is built from them. Tensors may
have the hub's names or transformers' names, see `tensor_names`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tipsseg.backbones.tipsv2.config import ModelConfig
from tipsseg.backbones.tipsv2.headers import ONE_MODEL, Shapes, as_checkpoint_error, read_headers
from tipsseg.backbones.tipsv2.tensor_names import find_sources
from tipsseg.backbones.tipsv2.text import TextTower
from tipsseg.backbones.tipsv2.tokenizer import Tokenizer
from tipsseg.backbones.tipsv2.vision import VisionTower
from tipsseg.errors import CheckpointError
from tipsseg.weights.lock import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE

Sources = Mapping[str, tuple[str, ...]]


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
        self._weights = folder / WEIGHTS_FILE
        config, stored = read_headers(folder)
        self.config = config
        try:
            self._sources = find_sources(stored)
        except ValueError as error:
            raise CheckpointError(self._weights, f"tensors {error}", ONE_MODEL) from None
        shapes = {name: stored[first] for name, (first, *_) in self._sources.items()}
        for quantity, configured, stored_number in _model_numbers(self.config, shapes):
            if stored_number is not None and stored_number != configured:
                reason = f"describes a model with {configured:,} {quantity}, but {WEIGHTS_FILE} has {stored_number:,}"
                raise CheckpointError(folder / CONFIG_FILE, reason, ONE_MODEL)
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
        _check_names(self._weights, self._sources, expected)
        _check_shapes(self._weights, self._sources, stored, expected)

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
        with as_checkpoint_error(self._weights), safe_open(self._weights, framework="pt", device="cpu") as file:
            tensors: dict[str, Tensor] = {}
            for name in tower.state_dict():
                parts = [file.get_tensor(source) for source in self._sources[f"{prefix}.{name}"]]
                tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
                tensors[name] = tensor.to(device=device, dtype=dtype)
        tower.load_state_dict(tensors, strict=True, assign=True)
        tower.eval().requires_grad_(False)


def load_tipsv2(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Tipsv2, Tokenizer]:
    """Load both towers and the tokenizer from a model folder, see `Checkpoint`."""
    checkpoint = Checkpoint(folder)
    return checkpoint.read(device, dtype), checkpoint.tokenizer


def save_weights(path: Path, model: Tipsv2, dtype: torch.dtype) -> None:
    """Write the weights of `model` to a safetensors file with the hub's tensor names and layout."""
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}, path)


def _model_numbers(config: ModelConfig, shapes: Shapes) -> Iterator[tuple[str, int, int | None]]:
    """Yield model quantities as (name, number in config.json, number in the tensors or None if a tensor is missing)."""

    def size(name: str, axis: int) -> int | None:
        shape = shapes.get(name, ())
        return shape[axis] if axis < len(shape) else None

    def layers(prefix: str) -> int | None:
        return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}) or None

    vision, text = config.vision, config.text
    blocks, resblocks = "vision_encoder.blocks.", "text_encoder.transformer.resblocks."
    mlp = size(f"{blocks}0.mlp.w3.weight" if vision.use_swiglu_ffn else f"{blocks}0.mlp.fc2.weight", 1)
    yield "channels in the vision tower", vision.hidden_size, size("vision_encoder.cls_token", 2)
    yield "layers in the vision tower", vision.num_hidden_layers, layers(blocks)
    yield "channels in the MLP of the vision tower", vision.mlp_hidden_size, mlp
    yield "pixels along a patch", vision.patch_size, size("vision_encoder.patch_embed.proj.weight", 2)
    yield "positions in the vision tower", 1 + vision.grid_size**2, size("vision_encoder.pos_embed", 1)
    yield "register tokens", vision.num_register_tokens, size("vision_encoder.register_tokens", 1)
    yield "pieces of text", text.vocab_size, size("text_encoder.token_embedding.weight", 0)
    yield "layers in the text tower", text.num_hidden_layers, layers(resblocks)
    yield "channels in the MLP of the text tower", text.intermediate_size, size(f"{resblocks}0.mlp.c_proj.weight", 1)


def _check_names(path: Path, sources: Sources, expected: Collection[str]) -> None:
    unknown = (name for whole, parts in sources.items() if whole not in expected for name in parts)
    for fault, names in (
        ("is missing", sorted(set(expected) - set(sources))),
        ("is not part of the model that config.json describes", sorted(unknown)),
    ):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(path, f"tensor {names[0]} {fault}{others}", ONE_MODEL, tensor=names[0])


def _check_shapes(path: Path, sources: Sources, stored: Shapes, expected: Shapes) -> None:
    for whole, names in sources.items():
        rows, *others = expected[whole]
        shape = (rows // len(names), *others)
        for name in names:
            if stored[name] != shape:
                reason = f"tensor {name} has shape {list(stored[name])}, but config.json requires {list(shape)}"
                raise CheckpointError(path, reason, ONE_MODEL, tensor=name)
