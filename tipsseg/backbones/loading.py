"""--model -> verified files -> an Encoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import UsageError
from tipsseg.util.printable import quoted
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from tipsseg.backbones.tipsv2.encoder import Encoder


def load(
    model: str | Path = "l14", *, device: str = "auto", dtype: str = "auto", batch_size: int = 8, quiet: bool = False
) -> Encoder:
    """Fetch, verify and load a model.

    model       an id in weights.lock (l14, b14, so400m14, g14, tiny), its repository ("google/tipsv2-l14"), or a folder in the
                hub layout; a Path is a folder
    device      "auto" (CUDA before MPS before CPU), "cpu", "cuda", "cuda:1", "mps"
    dtype       "auto", "float32", "bfloat16", "float16"
    batch_size  windows that go through the vision tower at once
    quiet       no progress bars for downloads

    Raises UsageError, DeviceError, WeightsError, CheckpointError.
    """
    from tipsseg.backbones.devices import resolve_device, resolve_dtype
    from tipsseg.backbones.tipsv2.encoder import Encoder, check_batch_size

    if not isinstance(model, str | Path):
        raise UsageError(f"the model must be an id or a folder, not {quoted(model)}", 'For example: load("l14").')
    # A Path is a folder, be its name that of a model; pathlib drops the dot that says so.
    source = find_model(model if isinstance(model, str) else os.path.join(".", model))  # noqa: PTH118
    check_batch_size(batch_size)
    resolve_dtype(dtype, resolve_device(device))  # before any download
    return Encoder(source.fetch(quiet=quiet), device, dtype, batch_size)
