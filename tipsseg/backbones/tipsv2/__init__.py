"""TIPSv2 as an architecture (see `backbones.registry`). Importing it does not import torch."""

from __future__ import annotations

from pathlib import Path

from tipsseg.backbones.protocol import Backbone, Sizes
from tipsseg.backbones.tipsv2.headers import read_headers


def read_sizes(folder: Path) -> Sizes:
    """Read config.json and the header of model.safetensors. Raise CheckpointError if they are invalid."""
    return read_headers(folder)[0].sizes


def open_backbone(folder: Path, device: str, dtype: str, batch_size: int | None, *, lazy: bool) -> Backbone:
    """Open a model; see `Tipsv2Backbone`."""
    from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone

    return Tipsv2Backbone(folder, device, dtype, batch_size, lazy=lazy)
