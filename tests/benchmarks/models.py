"""Create models of the published sizes with seeded random weights, because speed and memory do not depend on the weights."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.config import parse_config
from tipsseg.util.files import processor_name

TINY = Path(__file__).resolve().parents[2] / "tipsseg" / "assets" / "tiny"

#: The values of config.json that differ from B/14's.
CONFIGS: dict[str, dict[str, object]] = {
    "b14": {"text_config": {"vocab_size": 1200}},
    "l14": {
        "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        "text_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
    },
}


def save_model(name: str, folder: Path) -> Path:
    """Write a model of a published size to a folder, in the hub layout and float32, with seeded random weights."""
    folder.mkdir(parents=True)
    values = {"model_type": "tipsv2", **CONFIGS[name]}
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(7)
    model = Tipsv2(parse_config(values, folder / "config.json"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
        model.vision_encoder.patch_embed.proj.weight.mul_(8)
    save_file(model.state_dict(), folder / "model.safetensors")
    shutil.copy(TINY / "tokenizer.model", folder)
    return folder


def machine(*packages: str) -> str:
    """Describe the versions, the processor and the threads."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tipsseg", *packages))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    cores = f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    return f"{versions}; {platform.system()} {platform.machine()} ({capability}), {cores}{gpu}"
