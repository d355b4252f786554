"""A folder in the hub layout -> a TIPSv2 model, strictly: every tensor is there, known and of the right shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tipsseg.errors import CheckpointError
from tipsseg.model.config import CONFIG_FILE, FOLDER_HINT, TOKENIZER_FILE, WEIGHTS_FILE, ModelConfig, read_config
from tipsseg.model.text import TextTower
from tipsseg.model.tokenizer import Tokenizer
from tipsseg.model.vision import VisionTower


class Tipsv2(nn.Module):
    """Both towers, under the names of the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = VisionTower(config.vision)
        self.text_encoder = TextTower(config.text)


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Tipsv2, Tokenizer]:
    """Read config.json, model.safetensors and tokenizer.model of `folder`.

    Tensors go one by one from the memory-mapped file to `device` and `dtype`, whatever floating type they are stored in.
    Returns the model in evaluation mode, without gradients, and its tokenizer.

    Raises CheckpointError, naming the file and the first tensor at fault.
    """
    config = read_config(folder / CONFIG_FILE)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, config.text.max_position_embeddings)
    if tokenizer.vocab_size > config.text.vocab_size:
        raise CheckpointError(
            tokenizer.path,
            f"has {tokenizer.vocab_size} pieces, but config.json states {config.text.vocab_size}",
            "Take all three files from one revision of one model.",
        )
    # On the meta device nothing is allocated or initialised: the file's tensors become the parameters.
    with torch.device("meta"):
        model = Tipsv2(config)
    tensors = _read_tensors(folder / WEIGHTS_FILE, model.state_dict(), device, dtype)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False), tokenizer


def save_weights(path: Path, model: Tipsv2, dtype: torch.dtype) -> None:
    """Write the weights of `model` as safetensors, in the names and layout of the hub."""
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}, path)


def _read_tensors(
    path: Path, expected: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            _check_names(path, names, expected)
            tensors = {}
            for name in names:
                shape = list(file.get_slice(name).get_shape())
                if shape != list(expected[name].shape):
                    raise CheckpointError(
                        path,
                        f"tensor {name} has shape {shape}, but config.json asks for {list(expected[name].shape)}",
                        "config.json and model.safetensors must come from one model.",
                        tensor=name,
                    )
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point():
                    raise CheckpointError(path, f"tensor {name} is {tensor.dtype}, not floating point", tensor=name)
                tensors[name] = tensor.to(device=device, dtype=dtype)
            return tensors
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", FOLDER_HINT) from None
    except SafetensorError as error:
        raise CheckpointError(path, f"is not a whole safetensors file ({error})", "Get the file again.") from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from error


def _check_names(path: Path, names: Sequence[str], expected: Mapping[str, Tensor]) -> None:
    hint = "config.json and model.safetensors must come from one model."
    for verdict, odd in (
        ("is missing", sorted(expected.keys() - set(names))),
        ("is not part of the model that config.json describes", sorted(set(names) - expected.keys())),
    ):
        if odd:
            others = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            raise CheckpointError(path, f"tensor {odd[0]} {verdict}{others}", hint, tensor=odd[0])
