"""A model of another architecture works in every command, by its config.json alone."""

from __future__ import annotations

from pathlib import Path

import colours
import numpy as np
import pytest
from PIL import Image
from running import run_command

import tipsseg
from tipsseg.backbones.registry import ARCHITECTURES
from tipsseg.errors import CheckpointError


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(ARCHITECTURES, "colours", colours.__name__)
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :64, 0], pixels[:, 64:, 2] = 220, 220
    Image.fromarray(pixels).save("imgs/flag.png")
    return str(colours.save_model(Path("model")))


def test_every_command_takes_a_model_of_another_architecture(model: str) -> None:
    ask = ("-m", model, "--device", "cpu", "--background", "none")
    assert "windows per image" in run_command("label", "imgs", "-c", "red,blue", *ask, "-o", "out", "--dry-run").err
    ran = run_command("label", "imgs", "-c", "red,blue", *ask, "-o", "out", "-f", "png")
    assert ran.code == 0, ran.err
    labels = np.array(Image.open("out/masks/flag.png"))
    assert (labels[:, :60] == 1).all()
    assert (labels[:, 68:] == 2).all()
    assert "disk" in run_command("encode", "imgs", "-m", model, "--device", "cpu", "-o", "feats", "--dry-run").err
    assert run_command("encode", "imgs", "-m", model, "--device", "cpu", "-o", "feats").code == 0
    for _ in range(2):
        ran = run_command("label", "imgs", "-c", "blue,red", *ask, "-o", "two", "-f", "png", "--features", "feats")
        assert ran.code == 0, ran.err
    assert (np.array(Image.open("two/masks/flag.png")) == 3 - labels).all()
    assert run_command("doctor", "-m", model, "--device", "cpu").code == 0
    assert tipsseg.load(model, device="cpu").label("imgs/flag.png", ["red", "blue"], mode="slide").labels.shape == (
        96,
        128,
    )


def test_an_unknown_architecture_is_named(model: str) -> None:
    Path(model, "config.json").write_text('{"model_type": "sounds"}')
    with pytest.raises(CheckpointError, match="model_type is 'sounds'"):
        tipsseg.load(model, device="cpu")
