"""A folder with a model -> its `Backbone`."""

from __future__ import annotations

from pathlib import Path

from tipsseg.backbones.protocol import Backbone
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone


def open_backbone(folder: Path, device: str = "auto", dtype: str = "auto", batch_size: int = 8) -> Backbone:
    """Load the model in a folder. There is one kind of model, TIPSv2; see `Tipsv2Backbone` for arguments and errors."""
    return Tipsv2Backbone(folder, device, dtype, batch_size)
