"""Training by the recipe on a CUDA GPU. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tinytips import pretrain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")


@pytest.mark.parametrize("recipe", [(), ("--patches", "none", "--dense")], ids=["all ideas", "truth masks"])
def test_losses_agree_with_those_of_the_cpu(
    recipe: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for device in ("cpu", "cuda"):
        options = ["--scenes", "5", "--steps", "2", "--batch-size", "3", "--device", device, *recipe]
        folder = tmp_path / device
        pretrain.main(["--work", str(folder / "run"), "--out", str(folder / "model"), *options])
        lines.append(json.loads(capsys.readouterr().out))
    for name in ("total", "contrastive"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=1e-3)
