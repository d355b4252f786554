"""A model of another architecture works in every command, by its config.json alone, from a folder and from the hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from huggingface_hub import constants
from masks import pixels
from PIL import Image
from running import run_command
from tipsseg_stranger import colours

import tipsseg
from tipsseg.backbones.registry import ARCHITECTURES
from tipsseg.errors import CheckpointError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import lock

REVISION = "0123456789" * 4


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


def test_weights_lock_takes_a_model_of_another_architecture(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Path("weights.lock").absolute()
    files = tuple(map(LockedFile, colours.FILES))
    lock.write_lock(
        pinned, {"tiny": lock.get_model("tiny"), "hues": ModelSpec("hues", "MIT", 1, files, "me/hues", REVISION)}
    )
    monkeypatch.setattr(lock, "find_lock", lambda: pinned)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(pinned.parent / "hub"))
    with FakeHub() as hub:
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        for name in colours.FILES:
            hub.add("me/hues", REVISION, name, Path(model, name).read_bytes(), large=False)
        for verb in ("lock", "download"):
            ran = run_command("weights", verb, "hues")
            assert ran.code == 0, ran.err
    assert all(file.sha256 for file in lock.get_model("hues").files)
    assert run_command("weights", "path", "hues").out == ran.out
    assert "downloaded, hashes in the lock" in run_command("weights", "list").out.splitlines()[1]
    verified = run_command("weights", "verify", "hues").out
    assert [line.split() for line in verified.splitlines()] == [["hues", name, "ok"] for name in colours.FILES]
    examined = run_command("doctor", "-m", "hues", "--device", "cpu")
    assert (examined.code, "ok    model hues: in " in examined.out) == (0, True), examined.out
    ask = ("-c", "red,blue", "--device", "cpu", "--background", "none", "-f", "png")
    assert run_command("label", "imgs", *ask, "-m", "hues", "-o", "pinned").code == 0
    assert run_command("label", "imgs", *ask, "-m", model, "-o", "local").code == 0
    assert pixels(Path("pinned/masks/flag.png")) == pixels(Path("local/masks/flag.png"))


def test_a_change_in_any_file_makes_another_model(model: str) -> None:
    for name in lock.TIPSV2_FILES[1:]:  # also beside the files that TIPSv2 has
        Path(model, name).touch()
    ask = ("label", "imgs", "-c", "red", "-m", model, "--device", "cpu", "-o", "out")
    assert run_command(*ask).code == 0
    Path(model, "colours.json").write_text("{}")
    assert "model model -> model with other files" in run_command(*ask).err


def test_an_unknown_architecture_is_named(model: str) -> None:
    Path(model, "config.json").write_text('{"model_type": "sounds"}')
    with pytest.raises(CheckpointError, match="model_type is 'sounds'"):
        tipsseg.load(model, device="cpu")
