"""Training by the recipe on a CUDA GPU. Skipped where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "pretrain" / "pretrain.py"


@pytest.mark.parametrize("recipe", [(), ("--patches", "none", "--dense")], ids=["all ideas", "truth masks"])
def test_losses_agree_with_those_of_the_cpu(recipe: tuple[str, ...], tmp_path: Path) -> None:
    lines = []
    for device in ("cpu", "cuda"):
        options = ["--scenes", "5", "--steps", "2", "--batch-size", "3", "--device", device, *recipe]
        command = [SCRIPT, "--work", tmp_path / device / "run", "--out", tmp_path / device / "model", *options]
        ran = subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True, text=True)
        lines.append(json.loads(ran.stdout))
    for name in ("total", "contrastive"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=1e-3)
