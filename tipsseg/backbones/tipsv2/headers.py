"""Read config.json and the header of model.safetensors, but no tensors. Import torch only for a learned temperature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tipsseg.backbones.tipsv2.config import TEMPERATURE, ModelConfig, read_config
from tipsseg.errors import CheckpointError
from tipsseg.util.files import open_regular
from tipsseg.weights.lock import CONFIG_FILE, WEIGHTS_FILE, missing_hint

#: Header limits: bytes (the released files have about 100,000), tensors (715), characters per name (64), dimensions (4).
_HEADER_BYTES = 16 << 20
_TENSORS = 10_000
_NAME = 200
_AXES = 8

#: Supported tensor dtypes.
_FLOATS = ("F64", "F32", "F16", "BF16")

_INCOMPLETE = "Download the file again."
ONE_MODEL = "config.json and model.safetensors must come from one model."

#: Name of the learned temperature, a tensor outside the towers. The released files lack it.
_TEMPERATURE = "temperature"

Shapes = Mapping[str, tuple[int, ...]]


def read_model_config(folder: Path) -> ModelConfig:
    """Read config.json, and a learned temperature from model.safetensors. Raise CheckpointError if a file is invalid."""
    return read_headers(folder)[0]


def read_headers(folder: Path) -> tuple[ModelConfig, Shapes]:
    """Read the configuration, and the shapes of the towers' tensors by name in the file.

    transformers learns the temperature and saves it in the model's dtype. If the number in config.json rounds to the saved one
    in that dtype, it is more exact and is used.
    """
    config, path = read_config(folder / CONFIG_FILE), folder / WEIGHTS_FILE
    shapes = _read_shapes(path)
    shape = shapes.pop(_TEMPERATURE, None)
    if shape is None:
        return config, shapes
    if shape not in ((), (1,)):
        reason = f"tensor {_TEMPERATURE} has shape {list(shape)}, but should be one number"
        raise CheckpointError(path, reason, ONE_MODEL, tensor=_TEMPERATURE)
    import torch  # numpy has no bfloat16

    with as_checkpoint_error(path), safe_open(path, framework="pt", device="cpu") as file:
        learned: torch.Tensor = file.get_tensor(_TEMPERATURE)
    if learned.item() == torch.tensor(config.temperature, dtype=learned.dtype).item():
        return config, shapes
    low, high = TEMPERATURE
    if not low <= learned.item() <= high:
        reason = f"tensor {_TEMPERATURE} should be a number from {low:g} to {high:g}, is {learned.item():g}"
        raise CheckpointError(path, reason, tensor=_TEMPERATURE)
    return replace(config, temperature=learned.item()), shapes


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensor shapes in a file's header. Raise CheckpointError if it is invalid, or a tensor is not floating point."""
    shapes: dict[str, tuple[int, ...]] = {}
    with as_checkpoint_error(path):
        with open_regular(path) as stream:
            length = int.from_bytes(stream.read(8), "little")
        if length > _HEADER_BYTES:
            reason = f"is not a complete safetensors file (it declares a header of {length:,} bytes)"
            raise CheckpointError(path, reason, _INCOMPLETE)
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) > _TENSORS:
                raise CheckpointError(path, f"has {len(names):,} tensors, more than any TIPSv2 model has", ONE_MODEL)
            for name in names:
                if len(name) > _NAME:
                    raise CheckpointError(path, f"has a tensor whose name has {len(name):,} characters", ONE_MODEL)
                tensor = file.get_slice(name)
                dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
                if dtype not in _FLOATS:
                    reason = f"tensor {name} is {dtype}, not floating point ({', '.join(_FLOATS)})"
                    raise CheckpointError(path, reason, tensor=name)
                if len(shape) > _AXES:
                    raise CheckpointError(path, f"tensor {name} has {len(shape):,} dimensions", ONE_MODEL, tensor=name)
                shapes[name] = shape
    return shapes


@contextmanager
def as_checkpoint_error(path: Path) -> Iterator[None]:
    """Convert errors raised while reading a weights file to CheckpointError."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", missing_hint(path)) from None
    except SafetensorError as error:
        raise CheckpointError(path, f"is not a complete safetensors file ({error})", _INCOMPLETE) from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from error
