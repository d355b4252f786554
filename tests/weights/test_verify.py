"""The command that measures released weights, from end to end: random weights on a hub of its own, scenes in ADE20K's layout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from PIL import Image

from tipsseg.types import LockedFile
from tipsseg.weights.lock import find_lock, get_model, read_lock, write_lock

REPOSITORY = Path(__file__).resolve().parents[2]


def scenes_as_ade20k(folder: Path) -> Path:
    """Drawn scenes, whose ids of truth stand for classes of ADE20K."""
    for number, (picture, truth) in enumerate(
        (("desert.png", "desert.png"), ("meadow/house.webp", "meadow/house.png")), 1
    ):
        name = f"ADE_val_{number:08d}"
        for part in ("images", "annotations"):
            (folder / part / "validation").mkdir(parents=True, exist_ok=True)
        with Image.open(REPOSITORY / "examples/scenes" / picture) as image:
            image.convert("RGB").save(folder / f"images/validation/{name}.jpg")
        shutil.copy(REPOSITORY / "examples/truth" / truth, folder / f"annotations/validation/{name}.png")
    return folder


@pytest.mark.slow
def test_one_command_measures_the_weights_of_a_hub(tmp_path: Path, mlp_checkpoint: Path) -> None:
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "weights.lock")
    shutil.copytree(REPOSITORY / "tipsseg", site / "tipsseg", ignore=ignored)
    model = get_model("l14")
    assert model.repository is not None
    assert model.revision is not None
    contents = {path.name: path.read_bytes() for path in mlp_checkpoint.iterdir() if path.is_file()}
    files = tuple(
        LockedFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(contents.items())
    )
    write_lock(site / "tipsseg/weights.lock", {**read_lock(find_lock()), "l14": replace(model, files=files)})
    masks = tmp_path / "parts/masks"
    shutil.copytree(REPOSITORY / "examples/truth/meadow", masks)
    shutil.copy(REPOSITORY / "examples/truth/classes.json", masks)
    shutil.copytree(REPOSITORY / "examples/scenes/meadow", tmp_path / "parts/images")
    with FakeHub() as hub:
        for name, data in contents.items():
            hub.add(model.repository, model.revision, name, data, large=name.endswith("safetensors"))
        foreign = ("HF_", "HUGGING", "XDG_", "TIPSSEG")
        ours = {"PYTHONPATH": str(site), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
        ran = subprocess.run(
            [
                sys.executable, str(REPOSITORY / "tests/real/verify.py"), "--models", "l14", "--skip-encoder",
                "--images", str(REPOSITORY / "examples/scenes/street"),
                "--ade20k", str(scenes_as_ade20k(tmp_path / "ade")), "--pascal-parts", str(tmp_path / "parts"),
            ],
            env={**{name: value for name, value in os.environ.items() if not name.startswith(foreign)}, **ours},
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = dict(line.strip("| ").split(" | ")[:2] for line in ran.stdout.splitlines() if line.startswith("| l14"))
    assert len(rows) == 7
    assert "over 2 images" in rows["l14: ADE20K, --mode whole"]
    assert "over 3 images" in rows["l14: PASCAL parts"]
    assert float(rows["l14: text tower, largest difference from transformers"]) < 1e-4
    assert np.isfinite(float(rows["l14: vision tower, the same"]))
    assert "25.06 (published)" in ran.stdout
